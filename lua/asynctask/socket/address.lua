-- address.lua - hosts and ports into addresses of the system, with the words that LuaSocket has for
-- failures. Numeric ones are made at once; names are looked up on the pool for blocking calls.

local core = require "asynctask.core"

local try = core.try
local native = core.socket.addresses

local address = {}

---LuaSocket's words for failures of getaddrinfo.
local words = {
  EAI_AGAIN = "temporary failure in name resolution",
  EAI_BADFLAGS = "invalid value for ai_flags",
  EAI_FAIL = "non-recoverable failure in name resolution",
  EAI_FAMILY = "ai_family not supported",
  EAI_MEMORY = "memory allocation failure",
  EAI_NONAME = "host or service not provided, or not known",
  EAI_SERVICE = "service not supported for socket type",
  EAI_NODATA = "No address associated with hostname",
}

---@param err asynctask.Error
---@return string
function address.words(err)
  return words[err.code] or err.message
end

local families = { inet = "ipv4", inet6 = "ipv6" }

---Looks up a name, and a service if there is one.
---@param host string
---@param service? string
---@param family? "inet"|"inet6"|"unspec"
---@return table[]? list `{host=, family=, port=}`
---@return string? err
function address.look_up(host, service, family)
  if host == "" then
    return nil, words.EAI_NONAME
  elseif service and #service > 31 then
    return nil, words.EAI_SERVICE
  end
  if not service and family ~= "inet6" and not host:find(":", 1, true) and core.net.is_numeric(host) then
    return { { host = host, family = "ipv4" } }
  end
  local list, err = try(core.net.resolve(host, { family = families[family], service = service }))
  if not list then
    return nil, address.words(err)
  end
  return list
end

-- A name, or a service by its name.
local function by_name(host, port, family, datagram)
  local list, err = address.look_up(host or "127.0.0.1", port, family)
  if not list then
    return nil, err
  end
  local all = {}
  for _, found in ipairs(list) do
    local one = native(host and found.host, tostring(found.port), host and "unspec" or family, datagram)
    table.move(one or {}, 1, one and #one or 0, #all + 1, all)
    if not host then
      break
    end
  end
  return all
end

---The addresses of a host and a port, in the system's order.
---@param host string|nil nil: every interface
---@param port string
---@param family "inet"|"inet6"|"unspec"
---@param datagram boolean
---@return string[]? list families and addresses in turn
---@return string? err
function address.find(host, port, family, datagram)
  local list, err = native(host, port, family, datagram)
  if list == false then
    list, err = by_name(host, port, family, datagram)
  end
  return list, err
end

return address
