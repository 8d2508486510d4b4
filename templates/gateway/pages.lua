-- What the gateway answers without asking a service: its models and its own health.

local answer = require "gateway_answer"
local config = require "gateway_config"
local limits = require "gateway_limits"

local M = {}

local function describe(name)
    return {id = name, object = "model", created = config.started, owned_by = "inferbase"}
end

-- /v1/models and /v1/models/NAME, as far as the key may use them.
function M.models()
    local key = limits.key()
    if key == false then return limits.no_key() end
    local one = ngx.var.uri:match("^/v1/models/(.+)$")
    if one then
        if not config.route(one, key) then return answer.no_model(one) end
        return answer.json(200, describe(one))
    end
    local data = {}
    for _, name in ipairs(config.names(key or nil)) do data[#data + 1] = describe(name) end
    return answer.list(data)
end

function M.health()
    return answer.json(200, {status = "ok"})
end

return M
