-- luacheck's settings; `make lint` runs it over the whole checkout.
std = "lua54"
cache = false
codes = true
max_line_length = 120
self = false -- a method need not look at its object
exclude_files = { "build", "build-*", "asynctask", ".luarocks", "lua_modules" }

-- What a spec overwrites on purpose stays visible in the spec.
files["spec"] = { std = "lua54+busted", ignore = { "512" } } -- 512: a loop that is left at once
files["spec/run.lua"] = { globals = { "arg" } }
files["*.rockspec"] = { std = "rockspec" }
files[".luacheckrc"] = { std = "luacheckrc" }

-- A ---@meta file names parameters for the reader and has no bodies.
files["lua/asynctask/meta.lua"] = { ignore = { "212", "241" } }
