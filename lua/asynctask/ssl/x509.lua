-- x509.lua - certificates with LuaSec's methods. Where LuaSec is installed its own `ssl.x509`, which does no I/O,
-- makes them; else there is what asynctask.tls knows.

local check = require "asynctask.check"

local M = {}

---@class asynctask.ssl.Certificate
---@field private known asynctask.tls.certificate
local Certificate = {}

local meta = { __index = Certificate, __name = "SSL:Certificate" }

local function luasec()
  local ok, x509 = pcall(require, "ssl.x509")
  return ok and x509 or nil
end

---@param known asynctask.tls.certificate
---@return table certificate
function M.of(known)
  local x509 = luasec()
  return x509 and x509.load(known.pem) or setmetatable({ known = known }, meta)
end

---@param pem string
---@return table? certificate
---@return string? err
function M.load(pem)
  check.expect(type(pem) == "string", 1, "loadcertificate", "string", pem)
  local x509 = luasec()
  if not x509 then
    return nil, "certificates are read by LuaSec, which is not installed (Debian: lua-sec; LuaRocks: luasec)"
  end
  return x509.load(pem)
end

-- "CN=a\,b,O=c" as a list of names and values.
local function parts(text)
  local list = {}
  for part in text:gsub("\\,", "\0"):gmatch("[^,]+") do
    local name, value = part:gsub("%z", ","):match("^%s*([^=]+)=(.*)$")
    list[#list + 1] = { name = name, value = value }
  end
  return list
end

---@return { name: string, value: string }[]
function Certificate:subject()
  return parts(self.known.subject)
end

---@return { name: string, value: string }[]
function Certificate:issuer()
  return parts(self.known.issuer)
end

---@return string hexadecimal
function Certificate:serial()
  return self.known.serial
end

---@return string
function Certificate:pem()
  return self.known.pem
end

local function time(seconds)
  return (os.date("!%b %d %H:%M:%S %Y GMT", seconds):gsub(" 0(%d) ", "  %1 ", 1))
end

---@return string
function Certificate:notbefore()
  return time(self.known.not_before)
end

---@return string
function Certificate:notafter()
  return time(self.known.not_after)
end

---@param when integer seconds since 1970
---@return boolean
function Certificate:validat(when)
  return when >= self.known.not_before and when <= self.known.not_after
end

---@param algorithm? "sha256"
---@return string? hexadecimal
---@return string? err
function Certificate:digest(algorithm)
  if algorithm ~= "sha256" then
    return nil, "only sha256 is known"
  end
  return self.known.fingerprint
end

---The alternative names.
---@return table<string, table>
function Certificate:extensions()
  return { ["2.5.29.17"] = { name = "X509v3 Subject Alternative Name", dNSName = self.known.names,
    iPAddress = self.known.addresses } }
end

return M
