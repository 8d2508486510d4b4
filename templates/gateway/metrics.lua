-- Figures in Prometheus' text form. All workers count into one shared memory.

local config = require "gateway_config"
local limits = require "gateway_limits"
local pool = require "gateway_pool"

local shared = ngx.shared.gateway_metrics
local BOUNDS = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}
local PREFIX = "inferbase_gateway_"

local M = {}

local function label(value)
    return '"' .. tostring(value):gsub("[\\\"\n]", {["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n"})
        .. '"'
end

local function labels(model, key)
    return "model=" .. label(model) .. ",key=" .. label(key)
end

local function add(name, with, amount)
    shared:incr(PREFIX .. name .. "{" .. with .. "}", amount, 0)
end

-- Buckets are counted apart and summed when they are read: one step a request, not fifteen.
local function observe(name, model, seconds)
    local bound = "+Inf"
    for _, one in ipairs(BOUNDS) do
        if seconds <= one then
            bound = tostring(one)
            break
        end
    end
    shared:incr("bucket|" .. name .. "|" .. bound .. "|" .. model, 1, 0)
    shared:incr("sum|" .. name .. "|" .. model, seconds, 0)
end

function M.request(request, key, status)
    if not request then
        -- Names that clients make up must not become figures of their own. There is no address
        -- where the request could not be read.
        if (ngx.var.request_uri or ""):find("^/v1/") then
            add("requests_total", labels("", "") .. ',code="' .. status .. '"', 1)
        end
        return
    end
    local model = request.route.name
    local with = labels(model, key and key.name or "")
    add("requests_total", with .. ',code="' .. status .. '"', 1)
    add("tokens_total", with .. ',type="input"', request.tokens_in)
    add("tokens_total", with .. ',type="output"', request.tokens_out)
    for id, what in pairs(request.failures) do
        add("service_failures_total", "service=" .. label(id) .. ",reason=" .. label(what), 1)
    end
    if status < 400 then
        if request.first_byte then observe("first_byte_seconds", model, request.first_byte) end
        observe("request_seconds", model, ngx.now() - ngx.req.start_time())
    end
end

local function histogram(out, name, help)
    out[#out + 1] = "# HELP " .. PREFIX .. name .. " " .. help
    out[#out + 1] = "# TYPE " .. PREFIX .. name .. " histogram"
    for model in pairs(config.routes) do
        local total = 0
        local with = "{model=" .. label(model)
        for index = 1, #BOUNDS + 1 do
            local bound = BOUNDS[index] and tostring(BOUNDS[index]) or "+Inf"
            total = total + (shared:get("bucket|" .. name .. "|" .. bound .. "|" .. model) or 0)
            out[#out + 1] = ("%s%s_bucket%s,le=\"%s\"} %d"):format(PREFIX, name, with, bound, total)
        end
        local sum = shared:get("sum|" .. name .. "|" .. model) or 0
        out[#out + 1] = ("%s%s_sum%s} %.6f"):format(PREFIX, name, with, sum)
        out[#out + 1] = ("%s%s_count%s} %d"):format(PREFIX, name, with, total)
    end
end

local function family(out, name, kind, help, lines)
    out[#out + 1] = "# HELP " .. PREFIX .. name .. " " .. help
    out[#out + 1] = "# TYPE " .. PREFIX .. name .. " " .. kind
    for _, line in ipairs(lines) do out[#out + 1] = PREFIX .. name .. line end
end

local function counters(name)
    local lines = {}
    local start = PREFIX .. name .. "{"
    for _, found in ipairs(shared:get_keys(0)) do
        if found:sub(1, #start) == start then
            lines[#lines + 1] = found:sub(#PREFIX + #name + 1) .. " " .. shared:get(found)
        end
    end
    table.sort(lines)
    return lines
end

local function each(list, make)
    local lines = {}
    for id, value in pairs(list) do lines[#lines + 1] = make(id, value) end
    table.sort(lines)
    return lines
end

function M.show()
    local out = {}
    family(out, "requests_total", "counter", "Requests by model, key and status.",
        counters("requests_total"))
    family(out, "tokens_total", "counter", "Tokens by model, key and direction.",
        counters("tokens_total"))
    family(out, "service_failures_total", "counter", "Tries that a service failed.",
        counters("service_failures_total"))
    family(out, "service_up", "gauge", "Whether a service answered last.",
        each(config.upstreams, function(id)
            return "{service=" .. label(id) .. "} " .. (pool.down(id) and 0 or 1)
        end))
    family(out, "service_requests", "gauge", "Requests that a service works on now.",
        each(config.upstreams, function(id)
            return "{service=" .. label(id) .. "} " .. pool.busy(id)
        end))
    local limited = {}
    for _, key in ipairs(config.keys) do
        if key.budget then limited[#limited + 1] = key end
    end
    family(out, "budget_tokens", "gauge", "Tokens that a key may use in a period.",
        each(limited, function(_, key)
            return ("{key=%s} %d"):format(label(key.name), key.budget.tokens)
        end))
    family(out, "budget_used_tokens", "gauge", "Tokens that a key used in this period.",
        each(limited, function(_, key)
            return ("{key=%s} %d"):format(label(key.name), limits.used(key))
        end))
    histogram(out, "first_byte_seconds", "From the request to the first byte of its answer.")
    histogram(out, "request_seconds", "From the request to the end of its answer.")
    ngx.header["Content-Type"] = "text/plain; version=0.0.4"
    ngx.print(table.concat(out, "\n"), "\n")
end

return M
