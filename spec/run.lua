-- Runs the specs with busted under the Lua that runs this file, against a build of this checkout.
--
--     lua5.4 spec/run.lua [busted's options] [files or directories]
--
-- ASYNCTASK_BUILD names the directory of the build (default: build, beside spec). The last line is
-- "N passed, N failed" (", N skipped" when specs were pending) and the exit code is 0 or 1. After
-- each spec, spec/support/report.lua checks that nothing of the runtime is left alive.

if _VERSION ~= "Lua 5.4" then
  io.stderr:write("spec/run.lua: this is " .. _VERSION .. ": run it with lua5.4\n")
  os.exit(1)
end

local here = (arg[0]:match("^(.*)/[^/]*$") or ".")
local root = here == "." and ".." or here:match("^(.*)/spec$") or (here == "spec" and ".") or here .. "/.."

local ok, lfs = pcall(require, "lfs")
if not ok or not pcall(require, "busted.runner") then
  io.stderr:write("spec/run.lua: busted for Lua 5.4 is missing: run ./bootstrap test\n")
  os.exit(1)
end

--- A path as the rest of the run may use it, whatever the current directory becomes.
local function absolute(path)
  return path:sub(1, 1) == "/" and path or lfs.currentdir() .. "/" .. path
end

root = absolute(root):gsub("/%.$", "")
local build = absolute(os.getenv("ASYNCTASK_BUILD") or root .. "/build")

local path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. root .. "/?.lua;" .. package.path
local cpath = build .. "/?.so;" .. package.cpath
package.path, package.cpath = path, cpath

-- busted gives every spec file its own package.loaded: what is loaded here is shared by all of them,
-- so that one state has one asynctask.
local support = require("spec.support.child")
support.root, support.build = root, build
local loaded, problem = pcall(require, "asynctask")
if not loaded then
  io.stderr:write("spec/run.lua: cannot load asynctask from " .. build .. ": " .. tostring(problem) .. "\n")
  os.exit(1)
end

local chosen = false
for i = 1, #arg do
  if lfs.attributes(arg[i], "mode") then chosen = true end
end
if not chosen then arg[#arg + 1] = root .. "/spec" end
table.insert(arg, 1, "--output=" .. root .. "/spec/support/report.lua")

require("busted.runner")({ standalone = false })
