-- Keys of clients, their rates and their budgets. Counters lie in memory that all workers share;
-- budgets are also written to a file, so that a restart does not forget them.

local cjson = require "cjson.safe"
local ffi = require "ffi"
local answer = require "gateway_answer"
local config = require "gateway_config"

ffi.cdef [[
unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);
int fsync(int descriptor);
int fileno(void *file);
]]

local rates = ngx.shared.gateway_rates
local budgets = ngx.shared.gateway_budgets
local digest = ffi.new("unsigned char[32]")
local MINUTE = 60
local SAVE_SECONDS = 1
-- OpenAI's own rule of thumb; only what a request is charged until its real usage is known.
local BYTES_A_TOKEN = 4
-- Pictures come as text of megabytes and are some thousand tokens.
local MOST_GUESSED = 32768

local M = {}

local function sha256(text)
    ffi.C.SHA256(text, #text, digest)
    return (ffi.string(digest, 32):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- The key of a request: nil when the gateway is open, false when the request has none or a wrong
-- one.
function M.key()
    if config.open then return nil end
    local given = ngx.var.http_authorization or ""
    -- Whoever it is can send this, so it must not be a pattern that takes long.
    local secret = given:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+) *$")
    return secret and config.by_hash[sha256(secret)] or false
end

function M.no_key()
    local given = ngx.var.http_authorization
    local message = given and "The API key is wrong."
        or "There is no API key: send it as Authorization: Bearer KEY."
    return answer.fail(401, "invalid_request_error", "invalid_api_key", message)
end

-- A sliding minute: what was counted in this one, and the part of the last one that still lies
-- within 60 seconds, as if it had been spread evenly.
local function window(kind, key)
    local now = ngx.now()
    local number, into = math.floor(now / MINUTE), now % MINUTE
    local prefix = kind .. "|" .. key.name .. "|"
    return prefix .. number, rates:get(prefix .. (number - 1)) or 0, into
end

local function count(kind, key, amount)
    local name, before, into = window(kind, key)
    local current = rates:incr(name, amount, 0, 3 * MINUTE) or 0
    return current, before, into
end

-- Seconds until `more` fits under the limit.
local function wait(limit, current, before, into, more)
    local room = limit - current - more
    local seconds
    if room >= 0 then
        seconds = MINUTE - MINUTE * room / math.max(before, 1) - into
    else
        local later = MINUTE - MINUTE * math.max(limit - more, 0) / math.max(current, 1)
        seconds = MINUTE - into + later
    end
    return math.max(1, math.ceil(seconds))
end

local PERIODS = {day = "!%Y-%m-%d", week = "!%G-W%V", month = "!%Y-%m", total = "total"}

local function period(key)
    return os.date(PERIODS[key.budget.per], ngx.time())
end

local function budget_name(key)
    return key.name .. "|" .. period(key)
end

-- Seconds until the next period begins; nil when there is none.
local function next_period(key)
    local now = os.date("!*t", ngx.time())
    local day = 86400 - (now.hour * 3600 + now.min * 60 + now.sec)
    if key.budget.per == "day" then return day end
    if key.budget.per == "week" then return day + (7 - (now.wday + 5) % 7 - 1) * 86400 end
    if key.budget.per == "month" then
        local last = tonumber(os.date("!%d", os.time({year = now.year, month = now.month + 1,
            day = 0, hour = 12})))
        return day + (last - now.day) * 86400
    end
    return nil
end

function M.used(key)
    return budgets:get(budget_name(key)) or 0
end

-- Tokens of a text of which only the length is known.
function M.guess(bytes)
    return math.ceil(bytes / BYTES_A_TOKEN)
end

-- Tokens of a request of which only the length is known.
function M.guess_request(bytes)
    return math.min(M.guess(bytes), MOST_GUESSED)
end

-- Returns the counters that it counted in.
local function charge(key, tokens)
    local charged = {tokens = tokens}
    if key.tpm then
        charged.rate = window("tokens", key)
        rates:incr(charged.rate, tokens, 0, 3 * MINUTE)
    end
    if key.budget then
        charged.budget = budget_name(key)
        budgets:incr(charged.budget, tokens, 0)
    end
    return charged
end

-- Counts a request against the key's limits, or answers 429. Returns what it was charged
-- beforehand, which `settle` sets right.
function M.admit(key, bytes)
    if not key then return nil end
    if key.budget and M.used(key) >= key.budget.tokens then
        local per = key.budget.per == "total" and "" or " a " .. key.budget.per
        return answer.fail(429, "insufficient_quota", "insufficient_quota", ("The budget of this "
            .. "key, %d tokens%s, is used up."):format(key.budget.tokens, per), next_period(key))
    end
    if key.tpm then
        local current, before, into = count("tokens", key, 0)
        if current + before * (MINUTE - into) / MINUTE >= key.tpm then
            return answer.fail(429, "tokens", "rate_limit_exceeded", ("This key may use %d tokens "
                .. "a minute."):format(key.tpm), wait(key.tpm, current, before, into, 1))
        end
    end
    if key.rpm then
        local current, before, into = count("requests", key, 1)
        if current + before * (MINUTE - into) / MINUTE > key.rpm then
            count("requests", key, -1)
            return answer.fail(429, "requests", "rate_limit_exceeded", ("This key may send %d "
                .. "requests a minute."):format(key.rpm),
                wait(key.rpm, current - 1, before, into, 1))
        end
    end
    return charge(key, M.guess_request(bytes))
end

-- Replaces what a request was charged beforehand by what it used. The minute or the period may be
-- another one by now: each has its own counter, and one that is gone needs nothing back.
function M.settle(key, charged, tokens)
    -- Nothing was charged where no key is asked for, and where the request was refused.
    if not charged then return end
    charge(key, tokens)
    if charged.rate then rates:incr(charged.rate, -charged.tokens) end
    if charged.budget then budgets:incr(charged.budget, -charged.tokens) end
end

local function read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    return cjson.decode(text)
end

-- Takes up the counters of the last run; called before the workers start.
function M.load()
    local path = config.state .. "/budgets.json"
    local kept = read(path)
    if not kept then
        local file = io.open(path, "rb")
        if not file then return end
        file:close()
        -- Counting on from zero would hand out every budget a second time.
        error(path .. " is damaged: repair it, or remove it to begin all budgets anew")
    end
    for name, tokens in pairs(kept) do budgets:set(name, tokens) end
end

local saved

local function save()
    local kept = {}
    for _, key in ipairs(config.keys) do
        if key.budget then kept[budget_name(key)] = budgets:get(budget_name(key)) end
    end
    local text = cjson.encode(kept)
    if text == saved then return end
    local path = config.state .. "/budgets.json"
    -- Workers that end at the same time must not write into each other's file.
    local new = path .. ".new" .. ngx.worker.id()
    local file, problem = io.open(new, "wb")
    local done = file and file:write(text) and file:flush()
    if done then ffi.C.fsync(ffi.C.fileno(file)) end
    if file then done = file:close() and done end
    if done then done, problem = os.rename(new, path) end
    if done then
        saved = text
    else
        ngx.log(ngx.ERR, "the budgets cannot be saved: ", problem or "the disk is full")
    end
end

local function keep(early)
    save()
    if not early then ngx.timer.at(SAVE_SECONDS, keep) end
end

-- One worker saves; one that nginx starts in its place has the same number.
function M.start()
    for _, key in ipairs(config.keys) do
        if key.budget and ngx.worker.id() == 0 then return ngx.timer.at(0, keep) end
    end
end

M.stop = save

return M
