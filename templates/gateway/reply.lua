-- The answer of a service on its way to the client: passed on as it comes; its usage is counted.

local limits = require "gateway_limits"
local metrics = require "gateway_metrics"
local pool = require "gateway_pool"
local request_module = require "gateway_request"

local find, match, sub = string.find, string.match, string.sub
local TAIL = 16384
-- More than any event: what comes without an end is passed on as it is.
local LONGEST_EVENT = 1048576

local M = {}

function M.header()
    local request = ngx.ctx.request
    if not request or not request.id then return end
    pool.answered(request.id)
    ngx.header["X-Request-Id"] = ngx.var.request_id
    local kind = ngx.header["Content-Type"] or ""
    request.sse = find(kind, "text/event-stream", 1, true) == 1
    request.strip = request.strip and request.sse
    if request.strip then ngx.header["Content-Length"] = nil end
end

-- The last one that stands there: some engines tell it with every event.
local function read_usage(request, text)
    local given = match(text, '^.*"usage"%s*:%s*(%b{})')
    if not given then return false end
    local into = match(given, '"prompt_tokens"%s*:%s*(%d+)')
        or match(given, '"input_tokens"%s*:%s*(%d+)')
    local out = match(given, '"completion_tokens"%s*:%s*(%d+)')
        or match(given, '"output_tokens"%s*:%s*(%d+)')
    local all = match(given, '"total_tokens"%s*:%s*(%d+)')
    if not (into or out or all) then return false end
    request.counted = true
    request.tokens_out = tonumber(out) or 0
    request.tokens_in = tonumber(into) or tonumber(all) - request.tokens_out
    return true
end

local function count_events(request, text)
    local at, count = 1, 0
    while true do
        local _, last = find(text, "data:", at, true)
        if not last then break end
        count, at = count + 1, last + 1
    end
    request.events = request.events + count
end

-- Events without the one that only tells the usage, for which the client did not ask.
local function stripped(request, text)
    if not find(text, '"usage"', 1, true) then return text end
    local kept = {}
    for event in text:gmatch(".-\n\r?\n") do
        if find(event, '"usage"', 1, true) and read_usage(request, event)
            and find(event, '"choices"%s*:%s*%[%s*%]') then
            event = ""
        end
        kept[#kept + 1] = event
    end
    return table.concat(kept)
end

-- Reads the usage of a stream that is passed on as it is, of whole lines where they come in parts.
local function watch(request, text, last)
    if request.rest then text = request.rest .. text end
    local whole = last and #text + 1 or match(text, "^.*\n()") or 1
    request.rest = whole <= #text and sub(text, math.max(whole, #text - TAIL)) or nil
    if find(text, '"usage"', 1, true) then read_usage(request, sub(text, 1, whole - 1)) end
end

-- The text after what was held back of the last one; nil while no event can end in it. A long
-- event comes in many parts, which are put together once.
local function joined(request, text, last)
    local parts = request.parts
    if not parts then return text end
    parts[#parts + 1], parts.length = text, parts.length + #text
    if not last and parts.length <= LONGEST_EVENT and not find(text, "\n", 1, true) then
        return nil
    end
    request.parts = nil
    return table.concat(parts)
end

local function stream(request, text, last)
    count_events(request, text)
    if not request.strip then return watch(request, text, last) end
    local held = request.parts
    text = joined(request, text, last)
    if not text then
        ngx.arg[1] = nil
        return
    end
    local whole = match(text, "^.*\n\r?\n()")
    if whole == #text + 1 then
        local kept = stripped(request, text)
        if held or kept ~= text then ngx.arg[1] = kept end
        return
    end
    whole = whole or 1
    if last or #text - whole > LONGEST_EVENT then
        ngx.arg[1] = stripped(request, sub(text, 1, whole - 1)) .. sub(text, whole)
        if last then read_usage(request, sub(text, whole)) end
        return
    end
    local rest = sub(text, whole)
    request.parts = {rest, length = #rest}
    ngx.arg[1] = stripped(request, sub(text, 1, whole - 1))
end

function M.body()
    local request = ngx.ctx.request
    if not request or not request.id then return end
    local text, last = ngx.arg[1], ngx.arg[2]
    if text ~= "" and not request.first_byte then
        ngx.update_time()
        request.first_byte = ngx.now() - ngx.req.start_time()
    end
    if request.sse then
        if text ~= "" or request.rest or request.parts then stream(request, text, last) end
    elseif text ~= "" then
        request.length = request.length + #text
        request.tail = sub((request.tail or "") .. text, -TAIL)
    end
    if last and request.tail then read_usage(request, request.tail) end
end

-- Whether a service worked on a request of which no answer arrived, and may go on with it: it was
-- silent for too long, or the client left before the first byte. Nginx says 499 of a client that
-- left, and the service's own status when that had come.
local function worked(request, status)
    if request.late then return true end
    if not request.id or request.first_byte or (status >= 400 and status ~= 499) then return false end
    local sent = (ngx.var.upstream_bytes_sent or ""):match("(%d+)%s*$")
    return sent ~= nil and sent ~= "0"
end

-- The end of every request: its real usage, and the figures.
function M.log()
    local request = request_module.ended()
    local status = ngx.status
    if not request then return metrics.request(nil, nil, status) end
    local key = request.key
    local failed = not request.first_byte or status >= 400
    if failed then
        local guessed = worked(request, status) and limits.guess_request(#request.text) or 0
        request.tokens_in, request.tokens_out = guessed, 0
    elseif not request.counted then
        -- Cut off by the client, or an engine that does not tell: an event is about one token.
        request.tokens_in = limits.guess_request(#request.text)
        request.tokens_out = request.events
        if request.writes then request.tokens_out = request.events + limits.guess(request.length) end
    end
    limits.settle(key, request.charged, request.tokens_in + request.tokens_out)
    metrics.request(request, key, status)
end

return M
