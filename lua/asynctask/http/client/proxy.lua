-- proxy.lua - the proxy for a URL: the option, or the environment as curl(1) reads it: http_proxy (in lower case only:
-- a CGI's HTTP_PROXY is the client's header), https_proxy, all_proxy, no_proxy.

local proxy = {}

local getenv = os.getenv

local function either(name)
  local value = getenv(name) or getenv(name:upper())
  return value ~= "" and value or nil
end

-- no_proxy: "*", or hosts and domains ("example.com" and ".example.com" mean the domain and what is below it).
local function is_excepted(host, port, list)
  host = host:lower():gsub("^%[(.*)%]$", "%1")
  for entry in list:lower():gmatch("[^%s,]+") do
    local name, at = entry:match("^(.-):(%d+)$")
    if not name or name:find(":", 1, true) then
      name, at = entry, nil
    end
    name = name:gsub("^%.", ""):gsub("^%[(.*)%]$", "%1")
    if name == "*" or ((at == nil or at == port)
        and (host == name or host:sub(-#name - 1) == "." .. name)) then
      return true
    end
  end
  return false
end

---@param url table parts of the URL
---@param option? string|false the option `proxy`
---@return string proxy its URL; "": none
function proxy.of(url, option)
  if option ~= nil then
    return option or ""
  end
  local found = url.scheme == "http" and getenv("http_proxy") or url.scheme == "https" and either("https_proxy")
    or either("all_proxy")
  if not found or found == "" then
    return ""
  end
  local except = either("no_proxy")
  if except and is_excepted(url.host, url.port, except) then
    return ""
  end
  return found
end

return proxy
