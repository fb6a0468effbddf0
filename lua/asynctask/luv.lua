-- asynctask.luv - luv in the same program: asynctask's tasks run on luv's loop, inside `uv.run`, beside luv's own
-- callbacks. `local uv = require "asynctask.luv"` in place of `require "luv"`, before anything else of asynctask.
-- Finding the loop is C's (csrc/host/luv.c).
--
-- The loop is luv's to run: `await` works in tasks, not on the main chunk, and the program ends with `uv.run()`.

local ok, uv = pcall(require, "luv")
if not ok then
  error("asynctask.luv: luv is not installed (Debian: lua-luv; LuaRocks: luv)\n" .. tostring(uv), 0)
end

local function refuse(why)
  error("asynctask.luv: cannot attach to luv's loop: " .. why, 0)
end

local luv_file = package.searchpath("luv", package.cpath)
local core_file = package.searchpath("asynctask.core", package.cpath)
if not luv_file or not core_file then
  refuse "luv or asynctask.core is part of this program, no shared object: give the loop to asynctask_open"
end

local open, reason = package.loadlib(core_file --[[@as string]], "luaopen_asynctask_luv")
if not open then
  refuse(tostring(reason))
end
local attached, why = open()(luv_file)
if not attached then
  refuse(why)
end

require "asynctask"

---luv's functions, all but `walk`.
local M = setmetatable({}, { __index = uv })

---luv's `walk` takes every handle of the loop for one of its own.
function M.walk()
  error("uv.walk: there are handles of asynctask's on this loop, which luv would take for its own", 2)
end

return M
