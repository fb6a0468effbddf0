-- fault.lua - what becomes of a handler that failed: which status its error is answered with, and who is told. Runs in
-- the connection's task.

local core = require "asynctask.core"
local response = require "asynctask.http.response"

local await, spawn = core.await, core.spawn
local respond = response.respond

local M = {}

local quiet_codes = { EPIPE = true, ECONNRESET = true, ECANCELED = true, EBADF = true, ETIMEDOUT = true }

-- Whether nothing reaches the client any more.
local function is_cut_off(conn)
  if not (conn.gone or conn.aborted) then
    local t = conn.stream:write("")
    conn.gone = t:status() == "faulted" and t:error() ~= nil
  end
  return conn.gone or conn.aborted
end

-- The fault of a handler whose client went away or was cut off says nothing new.
local function is_noise(conn, err)
  return type(err) == "table" and quiet_codes[err.code] and is_cut_off(conn)
end

-- The status that a fault is answered with. That of another server's answer, which has a URL, is not for this client.
local function status_of(err)
  local status = type(err) == "table" and err.url == nil and err.status
  return math.type(status) == "integer" and status >= 400 and status <= 599 and status or nil
end

-- Reports a fault: to `on_error`, or as one that nobody looked at (S15), with the whole chain of its traceback.
local function report(conn, t, err, req)
  local on_error = conn.record.on_error
  if on_error then
    spawn(on_error, err, t, req)
  else
    spawn(await, t)
  end
end

---Answers for a handler that failed, and reports it.
---@param conn table
---@param t asynctask.Task the handler's
---@param req asynctask.http.Request
---@return boolean whether the connection may go on
function M.failed(conn, t, req)
  local err = t:error()
  local status = status_of(err)
  if not status and not is_noise(conn, err) and t:status() == "faulted" then
    report(conn, t, err, req)
  end
  if conn.gone or conn.aborted then
    return false
  elseif conn.answered then
    conn:abort()
    return false
  end
  local words = status and status < 500 and type(err.message) == "string" and err.message .. "\n"
    or (status or 500) ~= 500 and ("error %d\n"):format(status) or "Internal Server Error\n"
  local headers = status and type(err.headers) == "table" and err.headers or nil
  local sent, wrong = core.pcall(respond, conn, status or 500, headers, words)
  if not sent and not conn.answered then -- its headers cannot be sent
    if conn.record.on_error then
      report(conn, t, wrong, req)
    else
      spawn(error, wrong, 0)
    end
    return (core.pcall(respond, conn, 500, nil, "Internal Server Error\n"))
  end
  return sent
end

return M
