-- body.lua - bodies of requests, out of the options body, form, json, multipart. A body is { text = } or, streamed,
-- { write = function(put), measure = function() -> bytes or nil, again = whether it can be sent twice }, and has a
-- `type` where one is known.

local core = require "asynctask.core"
local check = require "asynctask.check"
local escape = require "asynctask.http.client.escape"
local json = require "asynctask.http.json"
local multipart = require "asynctask.http.client.multipart"

local await, is_task = core.await, core.is_task

local body = {}

local function value_of(v, ...)
  if is_task(v) then
    return await(v)
  end
  return v, ...
end

-- What an iterator gives, which may be strings or Tasks of strings.
local function from_iterator(f, length)
  return {
    measure = function() return length end,
    write = function(put)
      while true do
        local chunk = value_of(f())
        if chunk == nil then
          return
        end
        put(chunk)
      end
    end,
  }
end

local function from_stream(stream, length)
  return {
    measure = function() return length end,
    write = function(put)
      while true do
        local chunk = await(stream:read_some())
        if chunk == nil then
          return
        end
        put(chunk)
      end
    end,
  }
end

local function has_read_some(v)
  local kind = type(v)
  if kind ~= "table" and kind ~= "userdata" then
    return false
  end
  local found, method = pcall(function() return v.read_some end)
  return found and method ~= nil
end

local makers = {}

function makers.body(v, name, o)
  if type(v) == "string" or type(v) == "number" then
    return { text = tostring(v) }
  elseif has_read_some(v) then
    return from_stream(v, o.length)
  elseif check.callable(v) then
    return from_iterator(v, o.length)
  end
  check.bad(2, name, ("option 'body': string, stream or iterator expected, got %s"):format(check.type_name(v)))
end

function makers.form(v)
  return { text = escape.fields(v), type = "application/x-www-form-urlencoded" }
end

function makers.json(v, name)
  local encoded, text = pcall(json.library().encode, v)
  if not encoded then
    check.bad(2, name, "option 'json': " .. tostring(text))
  end
  return { text = text, type = "application/json" }
end

function makers.multipart(v, name)
  return multipart.new(v, name)
end

---The body that the options ask for, or nil. Raises when they ask for two.
---@param o table
---@param name string of the function that was called
---@return table?
function body.of(o, name)
  local found, which
  for option, make in pairs(makers) do
    local value = o[option]
    if value ~= nil then
      if which then
        check.bad(2, name, ("options '%s' and '%s': a request has one body"):format(which, option))
      end
      found, which = make(value, name, o), option
    end
  end
  return found
end

return body
