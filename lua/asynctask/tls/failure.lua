-- failure.lua - the error objects of TLS (S22).
--
--     EPROTO   the peer breaks the protocol, has refused (its alert), or ends without close_notify (reason "truncated")
--     ECERT    the peer's certificate is not accepted; reason: why, in OpenSSL's words
--     EINVAL   what this program configured is not usable: a certificate, a key, a list of ciphers

local core = require "asynctask.core"

local failure = {}

local codes = { protocol = "EPROTO", certificate = "ECERT", memory = "ENOMEM" }

---@param op string
---@param message string
---@param reason? string
---@param kind? "protocol"|"certificate"|"memory"
---@param address? string
---@return asynctask.Error
function failure.of(op, message, reason, kind, address)
  return core.error {
    code = codes[kind or "protocol"], message = message, reason = reason, op = op, address = address,
  }
end

---@param op string
---@param address? string
---@return asynctask.Error
function failure.truncated(op, address)
  local message = op == "read" and "the connection has ended without close_notify"
    or "the peer has closed the connection"
  return failure.of(op, message, "truncated", "protocol", address)
end

---@param option string
---@param reason? string
---@param path? string
---@return asynctask.Error
function failure.option(option, reason, path)
  return core.error {
    code = "EINVAL", message = ("option '%s' cannot be used"):format(option), op = "context", reason = reason,
    path = path,
  }
end

return failure
