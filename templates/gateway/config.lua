-- What the machine file asks for (gateway.json beside this folder) and the secrets, which come
-- in the environment: keys of clients as SHA-256 only, keys of services as they are.

local cjson = require "cjson.safe"

local M = {routes = {}, aliases = {}, upstreams = {}, keys = {}, by_hash = {}}

local here = debug.getinfo(1, "S").source:match("^@(.*)/gateway_config%.lua$")

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

-- A name that no other gateway has, and this one not after a restart.
local function make_name()
    local file = assert(io.open("/dev/urandom", "rb"))
    local bytes = file:read(8)
    file:close()
    return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

-- Reads everything, once, in the master process; what is wrong keeps nginx from starting.
function M.load()
    local data = assert(cjson.decode(read(here .. "/gateway.json")), "gateway.json is not JSON")
    for name, value in pairs(data) do M[name] = value end
    M.started = ngx.time()
    M.name = make_name()
    local hashes = os.getenv("GATEWAY_KEYS") or ""
    local index = 0
    for hash in hashes:gmatch("[^,]+") do
        index = index + 1
        local key = assert(M.keys[index], "GATEWAY_KEYS has more keys than gateway.json")
        assert(#hash == 64 and not M.by_hash[hash], "GATEWAY_KEYS has a wrong or repeated hash")
        M.by_hash[hash] = key
        if key.models then
            key.allowed = {}
            for _, model in ipairs(key.models) do key.allowed[model] = true end
        end
    end
    assert(index == #M.keys, "GATEWAY_KEYS has fewer keys than gateway.json")
    M.open = index == 0
    for id, upstream in pairs(M.upstreams) do
        upstream.id = id
        if upstream.key then
            local secret = os.getenv(upstream.key)
            assert(secret and secret ~= "", upstream.key .. " is not set")
            assert(not secret:find("%c"), upstream.key .. " cannot stand in an HTTP header")
            upstream.authorization = "Bearer " .. secret
        end
        local host = upstream.host
        if host:find(":", 1, true) then host = "[" .. host .. "]" end
        upstream.authority = host .. ":" .. upstream.port
    end
    for name, route in pairs(M.routes) do route.name = name end
end

-- The route of a model's name or alias that this key may use.
function M.route(name, key)
    local route = M.routes[M.aliases[name] or name]
    if route and key and key.allowed and not key.allowed[route.name] then return nil end
    return route
end

-- Every name that this key may ask for, sorted.
function M.names(key)
    local names = {}
    for name in pairs(M.routes) do
        if M.route(name, key) then names[#names + 1] = name end
    end
    for name in pairs(M.aliases) do
        if M.route(name, key) then names[#names + 1] = name end
    end
    table.sort(names)
    return names
end

return M
