-- stream.lua - what TCP and Unix streams have in common: receive and send with LuaSocket's results.
-- A state has what was read and not yet received: `buffer` from `position` on, and before it `parts`, which
-- a receive has put aside and would lose if it were cancelled (S10). A receive that ends otherwise
-- has taken them. A state that has `fill` and `put` receives and sends by these (asynctask.ssl).

local core = require "asynctask.core"
local check = require "asynctask.socket.check"
local wait = require "asynctask.socket.wait"

local native = core.socket
local recv, native_send = core.socket.recv, core.socket.send
local now, find, sub, concat = core.now, string.find, string.sub, table.concat

local PIECE <const> = 8192
local LARGE <const> = 65536

local stream = {}

---@param state table
---@return table state
function stream.init(state)
  state.buffer, state.position = "", 1
  state.received, state.sent, state.birthday = 0, 0, now()
  return wait.init(state)
end

---@param state table
---@return boolean
function stream.dirty(state)
  return state.parts ~= nil or state.position <= #state.buffer
end

-- The next bytes of the system, into the empty buffer; or nil and why not.
local function fill(socket, state, size)
  local other = state.fill
  if other then
    local piece, err = other(socket, state, size)
    if piece then
      state.buffer, state.position = piece, 1
    end
    return piece, err
  end
  while true do
    local piece, err = recv(socket, size)
    if piece then
      state.buffer, state.position = piece, 1
      return piece
    elseif piece == nil then
      return nil, err
    end
    err = wait.ready(socket, state, "r")
    if err then
      return nil, err
    end
  end
end

-- What a cancelled receive had put aside comes back to the front of the buffer.
local function restore(state)
  local parts = state.parts
  if parts then
    parts[#parts + 1] = sub(state.buffer, state.position)
    state.buffer, state.position, state.parts = concat(parts), 1, nil
  end
end

-- Takes `n` bytes off the buffer.
local function take(state, n)
  local buffer, from = state.buffer, state.position
  if from == 1 and n == #buffer then
    state.buffer = ""
    return buffer
  end
  local piece = sub(buffer, from, from + n - 1)
  if from + n > #buffer then
    state.buffer, state.position = "", 1
  else
    state.position = from + n
  end
  return piece
end

local function put_aside(state, piece)
  if piece ~= "" then
    local parts = state.parts
    if parts then
      parts[#parts + 1] = piece
    else
      state.parts = { piece }
    end
  end
end

-- All that was put aside, and a last piece: they are received.
local function finish(state, piece)
  local parts = state.parts
  if parts then
    parts[#parts + 1] = piece
    piece = concat(parts)
    state.parts = nil
  end
  state.received = state.received + #piece
  return piece
end

local function without_returns(text)
  if find(text, "\r", 1, true) then
    return (text:gsub("\r", ""))
  end
  return text
end

local function receive_line(socket, state)
  while true do
    local newline = find(state.buffer, "\n", state.position, true)
    if newline then
      local line = finish(state, take(state, newline - state.position + 1))
      return without_returns(sub(line, 1, -2))
    end
    put_aside(state, take(state, #state.buffer - state.position + 1))
    local ok, err = fill(socket, state, PIECE)
    if not ok then
      return without_returns(finish(state, "")), err
    end
  end
end

local function receive_all(socket, state)
  while true do
    put_aside(state, take(state, #state.buffer - state.position + 1))
    local ok, err = fill(socket, state, LARGE)
    if not ok then
      local text = finish(state, "")
      return text, not (err == "closed" and text ~= "") and err or nil
    end
  end
end

-- Even of 0 bytes it waits for some to be there: LuaSocket's rule.
local function receive_count(socket, state, wanted)
  local got = 0
  while true do
    local there = #state.buffer - state.position + 1
    if there == 0 then
      local size = wanted - got
      local ok, err = fill(socket, state, size <= PIECE and PIECE or size < LARGE and size or LARGE)
      if not ok then
        return finish(state, ""), err
      end
      there = #state.buffer
    end
    if there >= wanted - got then
      return finish(state, take(state, wanted - got))
    end
    got = got + there
    put_aside(state, take(state, there))
  end
end

---Receives as LuaSocket's `receive` does: the pattern is "*l" (a line without its end, and without any
---carriage return), "*a" (all until the peer closes) or a number of bytes; what is received comes behind `prefix`.
---@param socket userdata
---@param state table
---@param pattern? string|number
---@param prefix? string
---@return string? data
---@return string? err "timeout", "closed"...
---@return string? partial what came before the error
function stream.receive(socket, state, pattern, prefix)
  prefix = prefix == nil and "" or check.string(prefix, 2, "receive")
  local count = tonumber(pattern)
  if not count then
    local text = pattern == nil and "*l" or check.string(pattern, 1, "receive")
    pattern = text:sub(1, 2)
    if pattern ~= "*l" and pattern ~= "*a" then
      check.bad(1, "receive", "invalid receive pattern")
    end
  elseif count < 0 or count ~= count then
    check.bad(1, "receive", "invalid receive pattern")
  end
  wait.begin(state)
  wait.check(state, "r")
  restore(state)
  local text, err
  if not count then
    text, err = (pattern == "*l" and receive_line or receive_all)(socket, state)
  else
    count = count < 2^53 and math.floor(count) or math.maxinteger
    text = ""
    if prefix == "" or count > #prefix then
      text, err = receive_count(socket, state, count - #prefix)
    end
  end
  if prefix ~= "" then
    text = prefix .. text
  end
  if err then
    return nil, err, text
  end
  return text, nil, nil
end

-- Indexes as string.sub has them, clipped to the data.
local function range(data, first, last)
  first, last = math.floor(first), math.floor(last)
  if first < 0 then
    first = #data + first + 1
  end
  if last < 0 then
    last = #data + last + 1
  end
  return first < 1 and 1 or first, last > #data and #data or last
end

---Sends as LuaSocket's `send` does.
---@param socket userdata
---@param state table
---@param data string
---@param first? number
---@param last? number
---@return number? last index of the last byte that is out
---@return string? err
---@return number? partial the same, with an error
function stream.send(socket, state, data, first, last)
  data = check.string(data, 1, "send")
  first, last = range(data, check.number(first, 2, "send", 1), check.number(last, 3, "send", -1))
  wait.begin(state)
  wait.check(state, "w")
  local at, err = first, nil
  local put = state.put or native_send
  while at <= last do
    local n
    n, err = put(socket, data, at, last)
    if n then
      at = at + n
    else
      err = err or wait.ready(socket, state, "w", at > first)
      if err then
        break
      end
    end
  end
  if at > first then -- what was out of the data may be no number to count with
    state.sent = state.sent + (at - first)
  end
  if err then
    return nil, err, at - 1.0
  end
  return at - 1.0, nil, nil
end

---@param state table
---@return number received bytes
---@return number sent bytes
---@return number age seconds
function stream.getstats(state)
  return state.received + 0.0, state.sent + 0.0, now() - state.birthday
end

---@param state table
---@param received? number
---@param sent? number
---@param age? number
---@return number one
function stream.setstats(state, received, sent, age)
  state.received = math.floor(check.number(received, 1, "setstats", state.received))
  state.sent = math.floor(check.number(sent, 2, "setstats", state.sent))
  if tonumber(age) then
    state.birthday = now() - tonumber(age)
  end
  return 1.0
end

local hows = { receive = "receive", send = "send", both = "both" }

---The methods that TCP and Unix streams share.
---@param group string "tcp{any}"
---@param classes table its `master`, `client` and `server`, filled before a method is called
---@param accepted fun(state: table): userdata a client for the connection that a server with that state accepts
---@param methods table filled
function stream.methods(group, classes, accepted, methods)
  function methods.receive(self, pattern, prefix)
    local state = check.class(self, classes.client, "receive")
    return stream.receive(self, state, pattern, prefix)
  end

  function methods.send(self, data, first, last)
    local state = check.class(self, classes.client, "send")
    return stream.send(self, state, data, first, last)
  end

  function methods.getstats(self)
    return stream.getstats(check.class(self, classes.client, "getstats"))
  end

  function methods.setstats(self, received, sent, age)
    return stream.setstats(check.class(self, classes.client, "setstats"), received, sent, age)
  end

  function methods.dirty(self)
    return stream.dirty(check.group(self, group, "dirty"))
  end

  function methods.accept(self)
    local state = check.class(self, classes.server, "accept")
    wait.begin(state)
    wait.check(state, "r")
    local connection = accepted(state)
    while true do
      local ok, err = native.accept(self, connection)
      if ok then
        return connection
      end
      err = err or wait.ready(self, state, "r")
      if err then
        return nil, err
      end
    end
  end

  function methods.listen(self, backlog)
    check.class(self, classes.master, "listen")
    local ok, err = native.listen(self, check.number(backlog, 1, "listen", 32))
    if not ok then
      return nil, err
    end
    native.retype(self, classes.server)
    return 1.0
  end

  function methods.shutdown(self, how)
    check.class(self, classes.client, "shutdown")
    native.shutdown(self, check.option(how, 1, "shutdown", hows, "both"))
    return 1.0
  end
end

return stream
