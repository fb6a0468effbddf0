-- tail.lua file [lines] - the last lines of a file, then what is appended to it, as `tail -F`: a file that is
-- cut off, or replaced by another one (a log that is rotated), is read from its beginning. It waits
-- for changes and looks at nothing meanwhile. Ends with Ctrl-C, or when the file is removed for good.

local task = require "asynctask"
local fs = require "asynctask.fs"

local await, try = task.await, task.try

local PATIENCE = 0.2 -- seconds that a rotated file may be missing
local PIECE = 65536

-- Where the last n lines begin: read backwards, a piece at a time.
local function last_lines(file, n)
  local at = await(file:stat()).size
  local newlines, final = -1, true -- the one at the very end ends the last line
  while at > 0 do
    local size = math.min(PIECE, at)
    at = at - size
    local piece = await(file:read_at(at, size)) or ""
    if final and piece:sub(-1) ~= "\n" then
      newlines = 0
    end
    final = false
    for i = #piece, 1, -1 do
      if piece:byte(i) == 10 then
        newlines = newlines + 1
        if newlines == n then
          return at + i
        end
      end
    end
  end
  return 0
end

local function copy_rest(file)
  while true do
    local piece = await(file:read(PIECE))
    if not piece then
      return
    end
    io.write(piece)
    io.flush()
  end
end

-- The file that is there now, if it is another one than `file`; or nil.
local function replaced(path, file)
  local there = try(fs.stat(path))
  if not there then
    await(task.delay(PATIENCE))
    there = await(fs.stat(path)) -- an error: it is gone
  end
  local ours = await(file:stat())
  if there.ino ~= ours.ino or there.dev ~= ours.dev then
    return await(fs.open(path))
  end
  if there.size < await(file:seek()) then
    io.stderr:write("tail.lua: file truncated\n")
    await(file:seek("set"))
  end
  return nil
end

local function tail(path, n)
  local file = await(fs.open(path))
  local changes <close> = fs.watch(path)
  await(file:seek("set", last_lines(file, n)))
  copy_rest(file)
  for _ in changes do
    local next_file = replaced(path, file)
    copy_rest(file) -- what was still written to the old one
    if next_file then
      await(file:close())
      file = next_file
      copy_rest(file)
    end
  end
end

if not arg[1] then
  io.stderr:write("usage: tail.lua file [lines]\n")
  os.exit(2)
end

task.main(function()
  local ok, err = task.pcall(tail, arg[1], tonumber(arg[2]) or 10)
  if not ok and err.op == "stat" and err.code == "ENOENT" then
    io.stderr:write("tail.lua: ", tostring(err), "\n")
  elseif not ok then
    error(err, 0)
  end
end)
