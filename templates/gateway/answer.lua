-- Answers that the gateway gives itself, in the form of OpenAI's API.

local cjson = require "cjson.safe"

local M = {}

local function send(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.header["X-Request-Id"] = ngx.var.request_id
    ngx.print(text, "\n")
    return ngx.exit(ngx.HTTP_OK)
end

function M.json(status, value)
    return send(status, cjson.encode(value))
end

-- A list as the API writes it; the library would write an empty one as an object.
function M.list(values)
    local parts = {}
    for index, value in ipairs(values) do parts[index] = cjson.encode(value) end
    return send(200, '{"object":"list","data":[' .. table.concat(parts, ",") .. "]}")
end

-- type and code are the words that OpenAI's clients know; wait: seconds for Retry-After.
function M.fail(status, kind, code, message, wait, param)
    if wait then ngx.header["Retry-After"] = tostring(wait) end
    if status == 401 then ngx.header["WWW-Authenticate"] = "Bearer" end
    local wrong = {message = message, type = kind, code = code or cjson.null, param = param or cjson.null}
    return M.json(status, {error = wrong})
end

function M.invalid(message, param)
    return M.fail(400, "invalid_request_error", nil, message, nil, param)
end

function M.no_model(name)
    local message = "The model " .. cjson.encode(name) .. " does not exist here, or this key may "
        .. "not use it; GET /v1/models lists what there is."
    return M.fail(404, "invalid_request_error", "model_not_found", message, nil, "model")
end

-- What nginx itself refused before any of this ran, such as a body that is too large.
function M.refused()
    local status = ngx.status
    local message = ({
        [404] = "There is nothing at this address.",
        [405] = "This method is not possible here.",
        [408] = "The request did not arrive in time.",
        [413] = "The request is too large.",
        [414] = "The address is too long.",
    })[status] or "The request cannot be understood."
    return M.fail(status, "invalid_request_error", nil, message)
end

return M
