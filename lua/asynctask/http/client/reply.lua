-- reply.lua - a response, as the client's caller gets it: the head, and the body as a stream that is filled no faster
-- than it is read.

local core = require "asynctask.core"
local check = require "asynctask.check"
local headers = require "asynctask.http.headers"
local iterator = require "asynctask.iterator"
local json = require "asynctask.http.json"

local await, start, try = core.await, core.start, core.try

local reply = {}

local MAX_TEXT = 128 * 1024 * 1024 -- bytes that text() and json() take, unless told otherwise

---A response. Its body belongs to whoever reads it first; what is not read holds its connection until the response is
---closed or collected.
---@class asynctask.http.Reply
---@field status integer
---@field ok boolean the status is 200 to 299
---@field headers asynctask.http.Headers
---@field url string that answered: of the last redirect; without credentials
---@field version string "1.0", "1.1", "2" or "3"
---@field method string of the request that was answered
---@field redirects integer how many were followed
---@field attempts integer how many requests were made, retries included
---@field private stream asynctask.Stream
local Reply = {}

local lazy = {}

function lazy.headers(self)
  return headers.headers(rawget(self, 1))
end

function lazy.ok(self)
  return self.status >= 200 and self.status < 300
end

local meta = {
  __name = "asynctask.http.Reply",
  __index = function(self, name)
    local method = Reply[name]
    if method then
      return method
    end
    local make = lazy[name]
    if make then
      local value = make(self)
      rawset(self, name, value)
      return value
    end
  end,
  __tostring = function(self)
    return ("%s %s: %d"):format(self.method, self.url, self.status)
  end,
}

---Reads from the body as a stream's `read` does: "l" (default), "L", "n", "a", a count; nil at the end.
---@param ... asynctask.Format
---@return asynctask.Task
function Reply:read(...)
  return self.stream:read(...)
end

---What is there, at least a byte and at most `max`; nil at the end.
---@param max? integer bytes
---@return asynctask.Task<string?>
function Reply:read_some(max)
  return self.stream:read_some(max)
end

---What stands before the delimiter.
---@param delimiter string
---@param opts? { max?: integer, keep?: boolean }
---@return asynctask.Task<string?>
function Reply:read_until(delimiter, opts)
  return self.stream:read_until(delimiter, opts)
end

---Iterates over the body by formats of `read` ("l" if none).
---@param ... asynctask.Format
---@return asynctask.Iterator, nil, nil, asynctask.Iterator
function Reply:lines(...)
  return self.stream:lines(...)
end

---Iterates over the body in the pieces in which it comes: `for chunk in reply:each_chunk() do`.
---@param max? integer bytes of a piece
---@return asynctask.Iterator, nil, nil, asynctask.Iterator
function Reply:each_chunk(max)
  return iterator.new(function()
    return self.stream:read_some(max)
  end)
end

---The next piece of the body; waits. Its failures know the URL.
---@param answer table a reply, or its fields
---@return string?
function reply.chunk(answer)
  local chunk, err = try(answer.stream:read_some())
  if err ~= nil then
    if type(err) == "table" and err.url == nil and err.op == answer.method then
      err.url, err.address = answer.url, answer.url
    end
    error(err, 0)
  end
  return chunk
end

local function collect(self, max)
  local parts, n, total = {}, 0, 0
  while true do
    local chunk = reply.chunk(self)
    if not chunk then
      return table.concat(parts, "", 1, n)
    end
    n, total = n + 1, total + #chunk
    if total > max then
      self.stream:close()
      error(core.error {
        code = "EMSGSIZE", op = self.method, address = self.url, url = self.url,
        message = ("the response's body is larger than %d bytes"):format(max),
      }, 0)
    end
    parts[n] = chunk
  end
end

local text_options = { max = check.positive }

local function limit_of(opts, name)
  return check.options(opts, 1, name, text_options).max or MAX_TEXT
end

---The rest of the body as a string. A body of more than `max` bytes (128 MiB) is a fault (EMSGSIZE).
---@param opts? { max?: integer }
---@return asynctask.Task<string>
function Reply:text(opts)
  return start(collect, self, limit_of(opts, "text"))
end

---The rest of the body as a value, read by lua-cjson or dkjson. What is no JSON is a fault (EJSON).
---@param opts? { max?: integer }
---@return asynctask.Task<any>
function Reply:json(opts)
  local max, library = limit_of(opts, "json"), json.library()
  return start(function()
    local decoded, value = pcall(library.decode, collect(self, max))
    if not decoded then
      error(core.error {
        code = "EJSON", op = self.method, address = self.url, url = self.url, message = tostring(value),
      }, 0)
    end
    return value
  end)
end

---Lets the body go: what is under way is broken off.
---@return asynctask.Task
function Reply:close()
  return self.stream:close()
end

function meta.__close(self)
  local t = self.stream:close()
  if not t:done() then
    core.shield(await, t)
  end
end

---@param fields table { list of names and values, status=, version=, url=, method=, stream= }
---@return asynctask.http.Reply
function reply.new(fields)
  return setmetatable(fields, meta)
end

return reply
