-- asynctask.tty - the standard descriptors as streams, whatever they are, and the terminal: its size,
-- its raw mode. Descriptors and modes are C's (csrc/io/tty.c, ttymode.c).

local core = require "asynctask.core"
local check = require "asynctask.check"
require "asynctask.net.stream" -- which gives streams their Lua methods

local from_result, from_error = core.from_result, core.from_error
local terminal = core.tty

---@class asynctask.tty
---@field stdin asynctask.Stream|asynctask.File standard input, opened at the first look
---@field stdout asynctask.Stream|asynctask.File standard output
---@field stderr asynctask.Stream|asynctask.File standard error
local tty = {}

local function check_stream(arg, name, v)
  local is = check.type_name(v)
  check.expect(v == nil or is == "asynctask.Stream" or is == "asynctask.File", arg, name, "stream", v)
end

-- ---- standard descriptors --------------------------------------------------------------------

local standard = { stdin = 0, stdout = 1, stderr = 2 }

-- Collected before the stream is: so that a File does not complain of being left open.
local closing_meta = {
  __gc = function(self)
    self.stream:close()
  end,
}

setmetatable(tty, {
  __index = function(_, name)
    local fd = standard[name]
    if not fd then
      return nil
    end
    local stream, err = terminal.standard(fd)
    if not stream then
      error(err, 0)
    end
    tty[name] = stream
    getmetatable(tty)[name] = setmetatable({ stream = stream }, closing_meta)
    return stream
  end,
})

-- ---- the terminal ----------------------------------------------------------------------------

---The size of a terminal in characters.
---@param stream? asynctask.Stream default: standard output, or else whichever of the three is a terminal
---@return integer? columns nil where there is no terminal
---@return integer|asynctask.Error rows or the error (ENOTTY)
function tty.size(stream)
  check_stream(1, "size", stream)
  return terminal.size(stream)
end

---@class asynctask.tty.Guard
---@field private raw asynctask.tty.Raw
local Guard = {}

local guard_meta = { __name = "asynctask.tty.Guard", __index = Guard }

-- Guards that were not closed: a guard that nobody keeps still holds.
local guards = {}

---Puts the terminal back as it was, when the last guard is closed. Closing twice is fine.
function Guard:close()
  guards[self] = nil
  self.raw:close()
end

guard_meta.__close = Guard.close

---Raw mode, as cfmakeraw(3): each key is readable at once, unechoed, Ctrl-C included. The terminal is as it was
---again after `raw(false)`, when the last guard is closed (`local _ <close> = tty.raw()`), and
---always when the state closes or the process exits; not when a signal kills the process.
---@param on? boolean default true; false closes all guards
---@param stream? asynctask.Stream default: standard input, or else whichever of the three is a terminal
---@return asynctask.tty.Guard? guard nil for `false`, and where there is no terminal
---@return asynctask.Error? error ENOTTY
function tty.raw(on, stream)
  check.expect(on == nil or type(on) == "boolean", 1, "raw", "boolean", on)
  check_stream(2, "raw", stream)
  if on == false then
    for guard in pairs(guards) do
      guard:close()
    end
    return nil
  end
  local raw, err = terminal.raw(stream)
  if not raw then
    return nil, err
  end
  local guard = setmetatable({ raw = raw }, guard_meta)
  guards[guard] = true
  return guard
end

---Opens a terminal, or a serial line, by name.
---@param path string "/dev/pts/3", "/dev/ttyS0"
---@return asynctask.Task stream an `asynctask.Stream`; ENOTTY when it is something else
function tty.open(path)
  check.expect(type(path) == "string" and path ~= "" and not path:find("\0", 1, true), 1, "open", "path", path)
  local stream, err = terminal.open(path)
  return stream and from_result(stream) or from_error(err)
end

local function characters(v)
  return math.type(v) == "integer" and v > 0 and v < 65536, "integer between 1 and 65535"
end

local pair_options = { raw = check.boolean, columns = characters, rows = characters }

---A new terminal (pty(7)) for programs that want one: give `slave` to a child process as its stdin,
---stdout and stderr, talk to it through `master`. When the last slave is closed the master reads the end.
---@param opts? {raw?: boolean, columns?: integer, rows?: integer} raw: no echo, no lines, as `tty.raw`
---@return asynctask.Task master, slave, name: two streams and a path
function tty.pair(opts)
  opts = check.options(opts, 1, "pair", pair_options)
  local master, slave, name = terminal.pair(opts.raw)
  if not master then
    return from_error(slave)
  end
  if opts.columns or opts.rows then
    terminal.resize(slave, opts.columns or 80, opts.rows or 24)
  end
  return from_result(master, slave, name)
end

return tty
