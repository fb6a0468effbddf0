-- Runs other programs for specs: a Lua script in a process of its own that finds this checkout, and
-- commands that a sanitizer's preloaded runtime must not follow into.

local child = {
  root = ".",      -- the checkout; set by spec/run.lua
  build = "build", -- the build under test; set by spec/run.lua
}

--- "asan", "tsan" or nil: what the build under test was instrumented with.
---@return string?
function child.sanitizer()
  return os.getenv("ASYNCTASK_SANITIZER")
end

--- Whether this is `make coverage`: what is linked to the build under test then needs gcc's own libgcov.
---@return boolean
function child.coverage()
  return os.getenv("COVERAGE_GCC") ~= nil
end

--- One word for the shell.
---@param s string
---@return string
function child.quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

--- The interpreter that runs this, as it was called.
---@return string
function child.interpreter()
  local i = -1
  while arg[i - 1] do i = i - 1 end
  return arg[i] or "lua5.4"
end

local function collect(command)
  local pipe = assert(io.popen(command, "r"))
  local output = pipe:read("a")
  local _, how, code = pipe:close()
  return output, how == "signal" and 128 + code or code
end

--- Runs a command line with the shell, without the sanitizer and without the flags of the make that
--- runs the suite.
---@param command string
---@return string output  standard output and standard error
---@return integer code   the exit code, 128 + signal when one ended it
function child.shell(command)
  return collect("unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES; { " .. command .. "\n} 2>&1 </dev/null")
end

---@class spec.child.options
---@field args string[]?   arguments of the script
---@field env table<string, string>?  more environment variables
---@field timeout number?  seconds after which it is killed (60)
---@field stdin string?    a file for standard input (/dev/null)
---@field directory string?  where it runs (the current directory)
---@field before string?   shell code that runs first, such as "ulimit -n 20;"

--- Runs a Lua script against this build in a process of its own, with the sanitizer if there is one.
---@param script string  the path of a file, or Lua source (anything with a newline or a space in it)
---@param options spec.child.options?
---@return string output  standard output and standard error, in the order they were written
---@return integer code   the exit code, 128 + signal when one ended it, 124 after the timeout
function child.lua(script, options)
  options = options or {}
  local file, temporary = script, nil
  if script:find("[%s]") then
    temporary = os.tmpname()
    local f = assert(io.open(temporary, "w"))
    assert(f:write(script))
    f:close()
    file = temporary
  end
  local q = child.quote
  local words = {
    "unset LUA_INIT LUA_INIT_5_4 LUA_PATH_5_4 LUA_CPATH_5_4;", options.before or "",
    options.directory and "cd " .. q(options.directory) .. " &&" or "",
    "exec timeout -k 5", tostring(options.timeout or 60), "env",
    "LUA_PATH=" .. q(child.root .. "/lua/?.lua;" .. child.root .. "/lua/?/init.lua;" .. child.root .. "/?.lua;;"),
    "LUA_CPATH=" .. q(child.build .. "/?.so;;"),
  }
  if child.coverage() and (options.before or ""):find("ulimit -f", 1, true) then -- its counts would not fit
    words[#words + 1] = "GCOV_PREFIX=/dev/null"
  end
  local preload = os.getenv("ASYNCTASK_PRELOAD")
  if preload then words[#words + 1] = "LD_PRELOAD=" .. q(preload) end
  for name, value in pairs(options.env or {}) do words[#words + 1] = name .. "=" .. q(value) end
  words[#words + 1] = child.interpreter()
  words[#words + 1] = q(file)
  for _, word in ipairs(options.args or {}) do words[#words + 1] = q(word) end
  words[#words + 1] = "2>&1 <" .. q(options.stdin or "/dev/null")
  local output, code = collect(table.concat(words, " "))
  if child.coverage() then -- a program that may not write its counts says so
    output = output:gsub("[^\n]*profiling[: ][^\n]*\n", "")
  end
  if temporary then os.remove(temporary) end
  return output, code
end

return child
