-- Builds C code for specs: modules that use the public header and link nothing of ours, and programs.
-- With the sanitizer that the suite runs under, so that what they share with the library is seen.

local child = require "spec.support.child"

local cc = {}

local sanitizers = {
  asan = "-fsanitize=address,undefined -fno-sanitize-recover=all",
  tsan = "-fsanitize=thread",
}

local headers = "-Icsrc/include $(pkg-config --cflags lua5.4)"
local directory -- of what was built; this process' own

--- The flags of the sanitizer that the build under test has.
---@return string
function cc.sanitize()
  return sanitizers[child.sanitizer()] or ""
end

local function place()
  if not directory then
    directory = os.tmpname()
    os.remove(directory)
    assert(os.execute("mkdir " .. child.quote(directory)))
    -- goes with this state
    cc.remover = setmetatable({}, { __gc = function() os.execute("rm -rf " .. child.quote(directory)) end })
  end
  return directory
end

--- Compiles spec/c/<name>.c to a shared object.
---@param name string
---@return string directory  where it is, as <name>.so
function cc.module(name)
  local target = place() .. "/" .. name .. ".so"
  local output, code = child.shell(("cd %s && ${CC:-gcc} -std=gnu11 -g -O1 -Wall -Wextra -Werror -shared -fPIC "
    .. "%s %s -pthread spec/c/%s.c -o %s"):format(child.quote(child.root), cc.sanitize(), headers, name,
    child.quote(target)))
  assert(code == 0, output)
  return place()
end

--- Compiles and loads it into this state.
---@param name string
---@return any
function cc.load(name)
  if package.loaded[name] then return package.loaded[name] end
  local before = package.cpath
  package.cpath = cc.module(name) .. "/?.so;" .. before
  local module = require(name)
  package.cpath = before
  return module
end

--- Compiles spec/c/<name>.c together with all sources of the library to a program.
---@param name string
---@param flags string?  more of them, for compiler and linker
---@return string path
function cc.program(name, flags)
  local target = place() .. "/" .. name
  -- what makes ThreadSanitizer see descriptors that libuv closes
  local seen = child.sanitizer() == "tsan" and "spec/support/preload.c" or ""
  local output, code = child.shell(("cd %s && ${CC:-gcc} -g -O1 %s -std=gnu11 -D_GNU_SOURCE= -Icsrc "
    .. "-Icsrc/include $(pkg-config --cflags lua5.4 libuv) csrc/*/*.c spec/c/%s.c %s -o %s %s "
    .. "$(pkg-config --libs lua5.4 libuv) -pthread -ldl -lm"):format(child.quote(child.root),
    cc.sanitize(), name, seen, child.quote(target), flags or ""))
  assert(code == 0, output)
  return target
end

return cc
