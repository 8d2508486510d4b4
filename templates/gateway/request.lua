-- A request: who sends it, for which model, may he, and which service gets it in which words.

local answer = require "gateway_answer"
local config = require "gateway_config"
local json = require "gateway_json"
local limits = require "gateway_limits"
local names = require "gateway_names"
local pool = require "gateway_pool"

local MOST_TRIES = 3
local CONNECT_SECONDS, SEND_SECONDS = 3, 60
local RETRY_SECONDS = 5
-- Of the names of all gateways that a request came through; a way of more than fifteen has no end.
local LONGEST_WAY = 16 * 17
-- What is passed on; the value says how a system prompt gets in, whether usage is asked for and
-- whether the answer is text that the model wrote.
local PATHS = {
    ["/v1/chat/completions"] = {system = "messages", usage = true, writes = true},
    ["/v1/completions"] = {usage = true, writes = true},
    ["/v1/responses"] = {system = "instructions", writes = true},
    ["/v1/embeddings"] = {},
    ["/v1/rerank"] = {},
    ["/v1/score"] = {},
}

-- The names that are read here, of which an engine must not find another one.
local READ = {model = true, messages = true, instructions = true, stream = true,
    stream_options = true}
local READ_OF_MESSAGE = {role = true, content = true}
local READ_OF_OPTIONS = {include_usage = true}

-- What is known of requests on their way, by id: nginx forgets ngx.ctx when it tries again.
local under_way = {}

local M = {}

local function body()
    ngx.req.read_body()
    local text = ngx.req.get_body_data()
    local path = not text and ngx.req.get_body_file()
    if path then
        local file = assert(io.open(path, "rb"))
        text = file:read("*a")
        file:close()
    end
    return text or ""
end

local function with_content(text, place, prompt)
    local first = text:sub(place[1], place[1])
    if first == '"' then return {place[1] + 1, place[1], json.quoted(prompt .. "\n\n"):sub(2, -2)} end
    if text:sub(place[1], place[2]) == "null" then
        return {place[1], place[2], json.quoted(prompt)}
    end
    if first ~= "[" then
        return answer.invalid("The content of a message is neither text nor a list.", "messages")
    end
    local comma = text:find("^%s*%]", place[1] + 1) and "" or ","
    local part = '{"type":"text","text":' .. json.quoted(prompt) .. "}" .. comma
    return {place[1] + 1, place[1], part}
end

-- The route's system prompt before the client's own, in one message: templates of many models
-- refuse a second one.
local function add_system(request, how, fields, text, prompt)
    local place = fields[how]
    if how == "instructions" then
        if place and text:sub(place[1], place[1]) == '"' then
            request[#request + 1] = with_content(text, place, prompt)
        elseif place then
            request[#request + 1] = {place[1], place[2], json.quoted(prompt)}
        else
            local at = text:find("{", 1, true) + 1
            request[#request + 1] = {at, at - 1, '"instructions":' .. json.quoted(prompt) .. ","}
        end
        return
    end
    if not place or text:sub(place[1], place[1]) ~= "[" then
        return answer.invalid("messages is missing, or not a list.", "messages")
    end
    local at = text:find("[^ \t\r\n]", place[1] + 1)
    if text:sub(at, at) == "{" then
        local message, problem = json.members(text, at, READ_OF_MESSAGE)
        if not message then return answer.invalid("A message cannot be read: " .. problem .. ".") end
        local role = json.value(text, message.role)
        if (role == "system" or role == "developer") and message.content then
            request[#request + 1] = with_content(text, message.content, prompt)
            return
        end
    end
    local comma = text:sub(at, at) == "]" and "" or ","
    local message = '{"role":"system","content":' .. json.quoted(prompt) .. "}" .. comma
    request[#request + 1] = {place[1] + 1, place[1], message}
end

-- Streams tell their usage only when asked; true when the client did not ask for it.
local function ask_for_usage(request, fields, text)
    local place = fields.stream_options
    if not place then
        local at = fields.stream[2] + 1
        request[#request + 1] = {at, at - 1, ',"stream_options":{"include_usage":true}'}
        return true
    end
    if text:sub(place[1], place[1]) ~= "{" then
        request[#request + 1] = {place[1], place[2], '{"include_usage":true}'}
        return true
    end
    local options, problem = json.members(text, place[1], READ_OF_OPTIONS)
    if not options then
        return answer.invalid("stream_options cannot be used: " .. problem .. ".", "stream_options")
    end
    local wanted = options.include_usage
    if wanted then
        if text:sub(wanted[1], wanted[2]) == "true" then return false end
        request[#request + 1] = {wanted[1], wanted[2], "true"}
    else
        local comma = next(options) and "," or ""
        request[#request + 1] = {place[1] + 1, place[1], '"include_usage":true' .. comma}
    end
    return true
end

-- Sends the request to the next service; answers itself when there is none left.
local function attempt(request)
    local id = request.tries < MOST_TRIES and pool.pick(request.route, request.tried)
    if not id then return M.give_up(request) end
    request.tries = request.tries + 1
    request.tried[id] = true
    local upstream = config.upstreams[id]
    local address = names.address(upstream)
    if not address then
        pool.failed(id, "refused")
        request.failures[id] = "refused"
        return attempt(request)
    end
    request.id, request.address, request.upstream = id, address, upstream
    ngx.ctx.request = request
    pool.enter(id)
    ngx.var.gateway_host = upstream.authority
    ngx.var.gateway_authorization = upstream.authorization or ""
    ngx.var.gateway_way = request.way
    local edits = {unpack(request.edits)}
    local asked = request.route.models
    local model = asked and asked[id] or upstream.model or request.route.name
    if model ~= request.asked then
        edits[#edits + 1] = {request.model[1], request.model[2], json.quoted(model)}
    end
    ngx.req.set_body_data(json.edited(request.text, edits))
end

-- Every service was tried; the worst that can still turn good decides.
function M.give_up(request)
    local loading, late, denied = false, false, false
    for id, what in pairs(request.failures) do
        if what == "refused" or what == "loading" then
            loading = loading or pool.down_for(id) < config.upstreams[id].loading
        end
        late = late or what == "late"
        denied = denied or what == "denied"
    end
    local name = json.quoted(request.asked)
    if loading then
        return answer.fail(429, "server_error", "model_loading", "The model " .. name
            .. " is loading or starting; try again.", RETRY_SECONDS)
    elseif late then
        return answer.fail(504, "server_error", "timeout", "The model " .. name .. " did not "
            .. "answer within " .. request.route.timeout .. " s.")
    elseif denied then
        return answer.fail(502, "server_error", "upstream_refused", "The service of the model "
            .. name .. " refuses the gateway's own key.")
    end
    return answer.fail(503, "server_error", "model_unavailable", "The model " .. name
        .. " is not available: none of its services answers.", RETRY_SECONDS)
end

-- The gateways that a request came through, this one included; nil if it was here before. Services
-- of a route can be gateways, of which the files of one inventory do not know all.
local function way()
    local before = ngx.var.http_x_gateway_way or ""
    if #before > LONGEST_WAY or before:find(config.name, 1, true) then return nil end
    return before == "" and config.name or before .. "," .. config.name
end

-- A new request.
function M.first()
    local key = limits.key()
    if key == false then return limits.no_key() end
    local through = way()
    if not through then
        return answer.fail(508, "server_error", "routing_loop",
            "The request came back to a gateway that it has passed: routes lead in a circle.")
    end
    local path = PATHS[ngx.var.uri]
    if not path then
        return answer.fail(404, "invalid_request_error", "unknown_url",
            "There is nothing at " .. ngx.var.uri .. ".")
    end
    if ngx.req.get_method() ~= "POST" then
        ngx.header["Allow"] = "POST"
        return answer.fail(405, "invalid_request_error", nil, "Use POST here.")
    end
    local text = body()
    local fields, problem = json.document(text, READ)
    if not fields then return answer.invalid("The request cannot be used: " .. problem .. ".") end
    local asked = json.value(text, fields.model)
    if type(asked) ~= "string" then
        return answer.invalid("model is missing, or not a text.", "model")
    end
    local route = config.route(asked, key)
    if not route then return answer.no_model(asked) end
    local request = {
        key = key, route = route, asked = asked, text = text, model = fields.model, edits = {},
        tried = {}, tries = 0, failures = {}, tokens_in = 0, tokens_out = 0, events = 0,
        length = 0, writes = path.writes, way = through,
        stream = fields.stream ~= nil and text:sub(unpack(fields.stream)) == "true",
    }
    -- Before anything refuses it, so that the figures know whose request that was.
    under_way[ngx.var.request_id] = request
    if route.system and path.system then
        add_system(request.edits, path.system, fields, text, route.system)
    end
    if request.stream and path.usage then
        request.strip = ask_for_usage(request.edits, fields, text)
    end
    request.charged = limits.admit(key, #text)
    return ngx.exec("@service")
end

-- How the last try ended, of the states that nginx keeps of all of them.
local function failure()
    local status = tonumber((ngx.var.upstream_status or ""):match("(%d+)%s*$")) or 502
    local connected = not (ngx.var.upstream_connect_time or "-"):find("%-%s*$")
    if status == 401 or status == 403 then return "denied" end
    if status == 503 then return "loading" end
    if not connected then return "refused" end
    return status == 504 and "late" or "broken"
end

-- A try of the request: the first, or another one after a service failed it before it answered
-- anything.
function M.try()
    local request = under_way[ngx.var.request_id]
    ngx.ctx.request = request
    if not request.id then return attempt(request) end
    local what, id = failure(), request.id
    pool.leave(id)
    pool.failed(id, what)
    request.id = nil
    request.failures[id] = what
    if what == "late" then
        request.late = true
        return M.give_up(request)
    end
    if what == "broken" and #request.route.to == 1 and not request.repeated then
        request.repeated = true
        request.tried[id] = nil
    end
    return attempt(request)
end

function M.balance()
    local balancer = require "ngx.balancer"
    local request = ngx.ctx.request
    balancer.set_timeouts(CONNECT_SECONDS, SEND_SECONDS, request.route.timeout)
    local done, problem = balancer.set_current_peer(request.address, request.upstream.port)
    if not done then ngx.log(ngx.ERR, "no such address: ", problem) end
end

-- What is known of the request that just ended; it is forgotten.
function M.ended()
    local request = under_way[ngx.var.request_id]
    under_way[ngx.var.request_id] = nil
    if request and request.id then pool.leave(request.id) end
    return request
end

return M
