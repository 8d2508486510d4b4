-- Which service gets a request, and which services are down. What requests meet decides; a
-- service that is down is asked for its health until it answers, so that no request must try.

local config = require "gateway_config"
local names = require "gateway_names"

local shared = ngx.shared.gateway_state
local WATCH_SECONDS, ASK_MS = 1, 2000
-- A connection that breaks may have been an old one; twice within this time is no accident.
local BROKEN_SECONDS = 10

local M = {}

local function busy_name(id, worker)
    return "busy|" .. worker .. "|" .. id
end

-- Requests that a service works on now, for all workers.
function M.busy(id)
    local total = 0
    for worker = 0, config.workers - 1 do
        total = total + (shared:get(busy_name(id, worker)) or 0)
    end
    return total
end

function M.enter(id)
    shared:incr(busy_name(id, ngx.worker.id()), 1, 0)
end

function M.leave(id)
    shared:incr(busy_name(id, ngx.worker.id()), -1, 0)
end

function M.down(id)
    return shared:get("down|" .. id) ~= nil
end

-- Seconds since a service answered last, 0 while it is well.
function M.down_for(id)
    local since = shared:get("down|" .. id)
    return since and ngx.now() - since or 0
end

-- A candidate of the route that is not in tried: one that is well, else one that is down.
function M.pick(route, tried)
    local count = #route.to
    local first = (shared:incr("turn|" .. route.name, 1, 0) or 0) % count
    local best, best_rank
    for step = 0, count - 1 do
        local id = route.to[(first + step) % count + 1]
        if not tried[id] then
            local rank = route.strategy == "round-robin" and 0 or M.busy(id)
            if M.down(id) then rank = rank + 1e9 end
            if not best_rank or rank < best_rank then best, best_rank = id, rank end
        end
    end
    return best
end

local function mark(id, why)
    if shared:add("down|" .. id, ngx.now()) then
        ngx.log(ngx.WARN, "service ", id, " is down: ", why)
    end
end

-- what: refused, loading, broken, late or denied; each counts against the service differently.
function M.failed(id, what)
    if what == "refused" or what == "loading" then
        mark(id, what)
    elseif what == "broken" and (shared:incr("broken|" .. id, 1, 0, BROKEN_SECONDS) or 0) > 1 then
        mark(id, "it breaks connections")
    end
end

function M.answered(id)
    if M.down(id) then
        shared:delete("down|" .. id)
        ngx.log(ngx.WARN, "service ", id, " is back")
    end
end

local function healthy(upstream)
    local address = names.address(upstream)
    if not address then return false end
    local socket = ngx.socket.tcp()
    socket:settimeout(ASK_MS)
    if not socket:connect(address, upstream.port) then return false end
    socket:send("GET " .. upstream.health .. " HTTP/1.0\r\nHost: " .. upstream.authority
        .. "\r\nConnection: close\r\n\r\n")
    local line = socket:receive("*l")
    socket:close()
    return line ~= nil and line:find("^HTTP/1%.%d 2%d%d") ~= nil
end

local function ask(id, upstream)
    if healthy(upstream) then M.answered(id) end
end

local function watch(early)
    if early then return end
    local threads = {}
    for id, upstream in pairs(config.upstreams) do
        if M.down(id) then threads[#threads + 1] = ngx.thread.spawn(ask, id, upstream) end
    end
    for _, thread in ipairs(threads) do ngx.thread.wait(thread) end
    ngx.timer.at(WATCH_SECONDS, watch)
end

-- A worker's requests are counted from zero: one that died left its count behind.
function M.start()
    for id in pairs(config.upstreams) do shared:set(busy_name(id, ngx.worker.id()), 0) end
    if ngx.worker.id() == 0 then
        names.start()
        ngx.timer.at(WATCH_SECONDS, watch)
    end
end

return M
