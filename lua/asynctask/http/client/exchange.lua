-- exchange.lua - a call of the client: one request, and those that follow from it: redirects, which are followed here
-- and not by curl, so that credentials go to the origin they are meant for and bodies are sent again only if
-- they can be; and retries. Everything here waits, inside the task of the call.

local core = require "asynctask.core"
local date = require "asynctask.http.date"
local native = require "asynctask.http.client.native"
local proxy = require "asynctask.http.client.proxy"

local await, try, now, start = core.await, core.try, core.now, core.start

local exchange = {}

local DRAIN <const> = 65536       -- bytes of a redirect's body that are read to keep its connection
local LONGEST_PAUSE <const> = 30  -- seconds between two attempts
local IDEMPOTENT <const> = { GET = true, HEAD = true, PUT = true, DELETE = true, OPTIONS = true, TRACE = true }
local REDIRECTS <const> = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }
local BUSY <const> = { [408] = true, [429] = true, [502] = true, [503] = true, [504] = true }
local PASSING <const> = {
  ECONNREFUSED = true, ECONNRESET = true, ECONNABORTED = true, EPIPE = true, EOF = true, EAI_AGAIN = true,
  ENETUNREACH = true, EHOSTUNREACH = true,
}
-- Headers that are meant for one origin; those that describe a body.
local SECRET <const> = { authorization = true, cookie = true, ["proxy-authorization"] = true, host = true }
local OF_BODY <const> = { ["content-type"] = true, ["content-encoding"] = true, ["content-language"] = true }

local function failure(req, code, message)
  return core.error { code = code, op = req.method, address = req.at.url, url = req.at.url, message = message }
end

-- ---- one request -------------------------------------------------------------------------------

-- Seconds that are left of the call's time, at least a moment; nil: no limit.
local function left_of(req)
  return req.deadline and math.max(req.deadline - now(), 0.001)
end

local function timed_out(req, stage, message)
  local e = failure(req, "ETIMEDOUT", message)
  e.stage = stage
  return e
end

-- The addresses for curl: the host's, or the proxy's where there is one.
local function addresses(client, req, through)
  local host, port = req.at.host, req.at.port
  if through ~= "" then
    local parts = native.url(through:find("://", 1, true) and through or "http://" .. through)
    if not parts then
      error(failure(req, "EINVAL", "the proxy's URL is malformed"), 0)
    end
    host, port = parts.host, parts.port or "1080"
  end
  local seconds = req.o.connect_timeout
  local left = left_of(req)
  local total = left and left < seconds
  local found, entry = core.pcall(core.with_timeout, total and left or seconds, client.names.entry, client.names, host,
    port)
  if found then
    return entry
  end
  if type(entry) == "table" and entry.code == "ETIMEDOUT" and entry.op == "timeout" then
    error(timed_out(req, total and "total" or "connect", "the name was not resolved in time"), 0)
  elseif type(entry) == "table" and entry.op == "resolve" then
    error(failure(req, entry.code, ("%s: %s"):format(host, entry.message)), 0)
  end
  error(entry, 0)
end

-- Sends a streamed body. Its own failure is kept for the call, and ends the transfer. Of `size` bytes, if that is
-- known, none more go out: the server would take them for another request, and curl does not look.
local function pump(req, transfer, size)
  local body, total = req.body, 0
  local function put(chunk)
    if type(chunk) ~= "string" then
      error(("a body's iterator gave a %s: strings expected"):format(type(chunk)), 0)
    end
    total = total + #chunk
    if size and total > size then
      error(failure(req, "EMSGSIZE", ("the body has more than the %d bytes that were announced"):format(size)), 0)
    end
    local room = transfer:send(chunk)
    if room ~= true then
      await(room)
    end
    if transfer:over() then
      error(req, 0) -- nobody wants the rest: out of `write`
    end
  end
  local sent, err = core.pcall(body.write, put)
  if sent and size and total < size then
    sent, err = false, failure(req, "EMSGSIZE", ("the body has %d bytes of the %d that were announced"):format(total,
      size))
  end
  if sent then
    transfer:finish()
  elseif err ~= req then
    req.body_failure = { err }
    transfer:cancel()
  end
end

-- The table for curl, made once for each origin and method.
local function options_of(client, req)
  local o, body = req.o, req.body
  local through = o.unix_socket and "" or proxy.of(req.at, o.proxy)
  local lines = {}
  for i, pair in ipairs(req.headers) do
    lines[i] = pair[2] == "" and pair[1] .. ";" or pair[1] .. ": " .. pair[2]
  end
  local n = #lines
  if body and not req.has_type then
    n = n + 1
    lines[n] = body.type and "Content-Type: " .. body.type or "Content-Type:"
  end
  if body then
    lines[n + 1] = "Expect:"
  end
  local size
  if body and body.measure then
    size = body.measure()
  end
  local entry = not o.unix_socket and addresses(client, req, through) or nil
  return {
    method = req.method, url = req.at.url, address = req.at.url, headers = lines,
    body = body and body.text or not body and (req.method == "POST" or req.method == "PUT" or req.method == "PATCH")
      and "" or nil,
    upload = body and body.write ~= nil, size = size,
    whole = req.whole, max_body = o.max_body or req.whole and req.whole_limit or nil, max_headers = o.max_headers,
    timeout = left_of(req), connect_timeout = o.connect_timeout, idle_timeout = o.idle_timeout,
    user = req.user, password = req.password, raw = o.decompress == false,
    proxy = through, unix_socket = o.unix_socket, resolve = entry and { entry } or nil,
    ca = o.ca, ca_path = o.ca_path, cert = req.cert, key = req.key, key_password = req.key and o.key_password,
    insecure_skip_verify = o.insecure_skip_verify, http_version = o.http_version,
    wait_for_http2 = req.at.scheme == "https",
  }
end

-- One request: a reply without its class. Raises what it fails with.
local function once(client, req)
  local options = options_of(client, req)
  local response, transfer, stream = client.native:start(options)
  local pumping
  if options.upload then
    req.body_failure = nil
    pumping = start(pump, req, transfer, options.size):named "the body of an HTTP request"
  end
  local status, version, list, text = try(response)
  if pumping and (not status or req.whole) then -- nobody takes the rest
    pumping:cancel()
  end
  if not status then
    local failed = req.body_failure
    error(failed and failed[1] or version, 0)
  end
  return {
    list, status = status, version = version, url = req.at.url, method = req.method, stream = stream, body = text,
    redirects = req.redirects, attempts = req.attempts,
  }
end

-- ---- retries -----------------------------------------------------------------------------------

---The first value of a header in a list of names and values.
---@param list string[]
---@param name string in lower case
---@return string?
function exchange.header(list, name)
  for i = 1, #list, 2 do
    if #list[i] == #name and list[i]:lower() == name then
      return list[i + 1]
    end
  end
  return nil -- one value: it is an argument of functions that want one
end

local header = exchange.header

-- Seconds that Retry-After asks for (RFC 9110, 10.2.3), or nil.
local function asked_pause(list)
  local value = header(list, "retry-after")
  if not value then
    return nil
  end
  if value:find("^%d+$") then
    return tonumber(value)
  end
  local time = date.parse(value)
  return time and math.max(0, time - os.time())
end

-- Seconds before the next attempt, or nil: this is the outcome.
local function pause_before(req, answer, err)
  local o = req.o
  local body = req.body
  if req.tries >= (o.retries or 0) or not IDEMPOTENT[req.method] or (body and body.write and not body.again) then
    return nil
  end
  if answer then
    if not BUSY[answer.status] then
      return nil
    end
  elseif type(err) ~= "table" or not (PASSING[err.code] or err.code == "ETIMEDOUT" and err.stage
      and err.stage ~= "total") then
    return nil
  end
  local pause = math.min((o.retry_delay or 0.5) * 2 ^ req.tries, LONGEST_PAUSE)
  pause = pause * (0.5 + math.random() / 2) -- so that many clients do not come back at once
  local asked = answer and asked_pause(answer[1])
  if asked and asked > LONGEST_PAUSE then
    return nil
  end
  pause = math.max(pause, asked or 0)
  if req.deadline and now() + pause >= req.deadline then
    return nil
  end
  return pause
end

-- Reads the rest of a response that nobody will see, if it is short, so that its connection can be used again.
local function drain(answer)
  local stream = answer.stream
  if not stream then
    return
  end
  local total = 0
  repeat
    local chunk = try(stream:read_some())
    total = total + (chunk and #chunk or 0)
  until not chunk or total > DRAIN
  stream:close()
end

local function with_retries(client, req)
  req.tries = 0
  while true do
    req.attempts = req.attempts + 1
    local done, answer = core.pcall(once, client, req)
    local pause = pause_before(req, done and answer or nil, not done and answer or nil)
    if not pause then
      if not done then
        error(answer, 0)
      end
      return answer
    end
    if done then
      drain(answer)
    end
    req.tries = req.tries + 1
    await(core.delay(pause))
  end
end

-- ---- redirects ---------------------------------------------------------------------------------

local function same_origin(a, b)
  return a.scheme == b.scheme and a.host:lower() == b.host:lower() and a.port == b.port
end

local function without(list, names)
  local kept = {}
  for _, pair in ipairs(list) do
    if not names[pair[1]:lower()] then
      kept[#kept + 1] = pair
    end
  end
  return kept
end

-- The request becomes the one that the redirect asks for (RFC 9110, 15.4).
local function follow(req, status, location)
  req.redirects = req.redirects + 1
  if req.redirects > req.o.max_redirects then
    error(failure(req, "ELOOP", ("more than %d redirects"):format(req.o.max_redirects)), 0)
  end
  local to, words = native.url(location, req.at.url)
  if not to then
    error(failure(req, "EPROTO", ("redirected to a malformed URL (%s)"):format(words)), 0)
  elseif to.scheme ~= "http" and to.scheme ~= "https" then
    error(failure(req, "EPROTONOSUPPORT", ("redirected to a URL of scheme '%s'"):format(to.scheme)), 0)
  elseif req.at.scheme == "https" and to.scheme == "http" then
    error(failure(req, "EINSECURE", ("redirected from https to %s"):format(to.url)), 0)
  end
  if status == 303 and req.method ~= "HEAD" or (status == 301 or status == 302) and req.method == "POST" then
    req.method, req.body = "GET", nil
    req.headers = without(req.headers, OF_BODY)
  elseif req.body and req.body.write and not req.body.again then
    error(failure(req, "ESPIPE", "redirected, and the body cannot be sent again"), 0)
  end
  if not same_origin(req.at, to) then
    req.headers = without(req.headers, SECRET)
    req.user, req.password, req.cert, req.key = nil, nil, nil, nil
  end
  if to.user then
    req.user, req.password = to.user, to.password or ""
  end
  req.at = to
end

---Makes the call. Waits; raises what it fails with.
---@param client table { native =, names = }
---@param req table { method, at, headers, o, body, whole, ... }: made by client.lua
---@return table fields of a reply, with `body` in whole mode
function exchange.run(client, req)
  req.redirects, req.attempts = 0, 0
  while true do
    local answer = with_retries(client, req)
    local location = REDIRECTS[answer.status] and req.o.redirect ~= false and header(answer[1], "location")
    if not location then
      return answer
    end
    drain(answer)
    follow(req, answer.status, location)
  end
end

return exchange
