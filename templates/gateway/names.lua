-- Addresses of services. The C library resolves names, so that /etc/hosts, Docker's names and
-- .local names count; it does so in a thread of its own, because a worker must never wait.

local ffi = require "ffi"
local config = require "gateway_config"

ffi.cdef [[
struct gateway_addrinfo {
    int flags, family, socktype, protocol;
    unsigned int addrlen;
    void *addr;
    char *canonname;
    struct gateway_addrinfo *next;
};
struct gateway_gaicb {
    const char *name, *service;
    const struct gateway_addrinfo *request;
    struct gateway_addrinfo *result;
    int done;
    int reserved[5];
};
int getaddrinfo_a(int mode, struct gateway_gaicb *list[], int count, void *event);
int gai_error(struct gateway_gaicb *request);
int getnameinfo(const void *addr, unsigned int length, char *host, unsigned int host_size,
                char *service, unsigned int service_size, int flags);
void freeaddrinfo(struct gateway_addrinfo *list);
]]

local GAI_NOWAIT, IN_PROGRESS, STREAM, NUMERIC_HOST = 1, -100, 1, 1
local AGAIN_SECONDS, POLL_SECONDS, PATIENCE_SECONDS = 15, 0.02, 30

local shared = ngx.shared.gateway_state
local M = {}

local function numeric(host)
    return host:find("^%d+%.%d+%.%d+%.%d+$") or host:find(":", 1, true)
end

-- The address that a service is reached at now; nil while its name is unknown.
function M.address(upstream)
    local host = numeric(upstream.host) and upstream.host or shared:get("at|" .. upstream.host)
    if host and host:find(":", 1, true) then return "[" .. host .. "]" end
    return host
end

local function text_of(info)
    local buffer = ffi.new("char[64]")
    if ffi.C.getnameinfo(info.addr, info.addrlen, buffer, 64, nil, 0, NUMERIC_HOST) ~= 0 then
        return nil
    end
    return ffi.string(buffer)
end

local function resolve(host)
    local hints = ffi.new("struct gateway_addrinfo", {socktype = STREAM})
    local request = ffi.new("struct gateway_gaicb", {request = hints})
    request.name = host
    local list = ffi.new("struct gateway_gaicb *[1]", {request})
    if ffi.C.getaddrinfo_a(GAI_NOWAIT, list, 1, nil) ~= 0 then return nil end
    local state
    local waited = 0
    repeat
        ngx.sleep(POLL_SECONDS)
        waited = waited + POLL_SECONDS
        state = ffi.C.gai_error(request)
        -- The thread writes into the request until it is done, so it is never let go before.
    until state ~= IN_PROGRESS
    if waited > PATIENCE_SECONDS then
        ngx.log(ngx.WARN, "resolving ", host, " took ", waited, " s")
    end
    if state ~= 0 then return nil end
    local found = text_of(request.result)
    ffi.C.freeaddrinfo(request.result)
    -- hints, list and host are in use until here.
    return found, hints, list
end

local told = {}

local function look(early, host)
    if early then return end
    local found = resolve(host)
    local known = shared:get("at|" .. host)
    if found then
        shared:set("at|" .. host, found)
        told[host] = nil
    elseif not known and not told[host] then
        ngx.log(ngx.WARN, "the name ", host, " cannot be resolved; it is tried again and again")
        told[host] = true
    end
    ngx.timer.at(found and AGAIN_SECONDS or 2, look, host)
end

-- Keeps the addresses of all names fresh; runs in one worker.
function M.start()
    local seen = {}
    for _, upstream in pairs(config.upstreams) do
        if not numeric(upstream.host) and not seen[upstream.host] then
            seen[upstream.host] = true
            ngx.timer.at(0, look, upstream.host)
        end
    end
end

return M
