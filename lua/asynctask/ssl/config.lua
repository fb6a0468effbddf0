-- config.lua - LuaSec's configurations as options of asynctask.tls. What this library has no part for (dhparam,
-- curves, options against protocols that OpenSSL no longer speaks) is accepted and does nothing.

local core = require "asynctask.core"
local check = require "asynctask.check"
local tls = require "asynctask.tls"

local try = core.try

local M = {
  ---`ssl.config` of LuaSec: what the library can do.
  config = {
    protocols = { any = true, sslv23 = true, tlsv1_2 = true, tlsv1_3 = true },
    options = { all = true }, algorithms = { ec = true },
    capabilities = { alpn = true, curves_list = false, dane = false, tlsv13 = true },
  },
}

---@class asynctask.ssl.Context
---@field tls asynctask.tls.Context
---@field verify boolean
---@field server boolean
local context_meta = { __name = "SSL:Context" }

-- protocol -> lowest and highest version
local versions = {
  any = {}, sslv23 = {}, tlsv1_2 = { "1.2", "1.2" }, tlsv1_3 = { "1.3", "1.3" },
}

local function list_of(v)
  return type(v) == "table" and v or { v }
end

local function has(list, word)
  for _, v in ipairs(list_of(list)) do
    if v == word then
      return true
    end
  end
  return false
end

-- The lowest and the highest version, less those that `options` rules out.
local function version_range(cfg)
  local range = versions[cfg.protocol]
  if not range then
    return nil, ("invalid protocol (%s)"):format(tostring(cfg.protocol))
  end
  local low, high = range[1], range[2]
  if has(cfg.options, "no_tlsv1_2") then
    low = "1.3"
  end
  if has(cfg.options, "no_tlsv1_3") then
    high = "1.2"
  end
  return { low, high }
end

-- The first certificate, and for servers more by name: `names` is asynctask's own.
local function certificates(cfg, options)
  local list = cfg.certificates or { { certificate = cfg.certificate, key = cfg.key, password = cfg.password } }
  local first = list[1] or {}
  options.cert, options.key, options.password = first.certificate, first.key, first.password
  options.names = cfg.names
  if (options.cert == nil) ~= (options.key == nil) then
    return "certificate and key belong together"
  elseif type(options.password) == "function" then
    options.password = options.password()
  elseif options.password ~= nil and type(options.password) ~= "string" then
    return "invalid password type"
  end
end

local function alpn(cfg)
  local list = cfg.alpn
  if type(list) == "function" then
    list = list {} -- asked once: the list is the same for all clients
  end
  return list and list_of(list) or nil
end

---Makes a context of a configuration, `mode` and `protocol` at least.
---@param cfg table
---@return asynctask.ssl.Context? context
---@return string? err
function M.newcontext(cfg)
  check.expect(type(cfg) == "table", 1, "newcontext", "table", cfg)
  local range, err = version_range(cfg)
  if not range then
    return nil, err
  elseif cfg.mode ~= "client" and cfg.mode ~= "server" then
    return nil, ("invalid mode (%s)"):format(tostring(cfg.mode))
  end
  local server, verify = cfg.mode == "server", has(cfg.verify, "peer")
  local options = {
    server = server or nil, ca = cfg.cafile, ca_dir = cfg.capath, ciphers = cfg.ciphers,
    ciphersuites = cfg.ciphersuites, min_version = range[1], max_version = range[2], alpn = alpn(cfg),
  }
  err = certificates(cfg, options)
  if err then
    return nil, err
  end
  if server and verify and (cfg.cafile or cfg.capath) then
    options.client_certificate = has(cfg.verify, "fail_if_no_peer_cert") and "require" or "request"
  end
  local ok, t = pcall(tls.context, options)
  if not ok then
    return nil, (tostring(t):match("%((.*)%)$") or tostring(t))
  end
  local context, failure = try(t)
  if not context then
    if core.is_cancelled(failure) then
      error(failure, 0)
    end
    return nil, tostring(failure)
  end
  return setmetatable({ tls = context, verify = verify, server = server }, context_meta)
end

---@param v any
---@return boolean
function M.is_context(v)
  return getmetatable(v) == context_meta
end

---The options of a handshake, or why there are none.
---@param context asynctask.ssl.Context
---@param name? string that `sni` was given
---@param host? string that the socket was connected to
---@return table|string options
function M.options(context, name, host)
  local options = { context = context.tls, handshake_timeout = math.huge }
  if context.server then
    return options
  elseif not context.verify then
    options.server_name, options.insecure_skip_verify = name, true
    return options
  end
  options.server_name = name or host
  return options.server_name and options or "whose certificate is to be verified is not known: call sni"
end

return M
