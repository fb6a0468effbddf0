-- Makes the Lua files of the library into one C file, for hosts that link libasynctask.a and have no file at
-- hand (asynctask_preload). Arguments: the C file to write, the directory that holds asynctask/, the files below
-- it. What only describes (meta.lua) is left out.

local output, root = arg[1], arg[2]

--- The name of the module that `require` finds in this file.
local function module(path)
  return (path:gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))
end

--- The bytes as the elements of an array.
local function bytes(text)
  local out = {}
  for at = 1, #text, 32 do
    out[#out + 1] = "  " .. table.concat({ text:byte(at, at + 31) }, ",") .. ","
  end
  return table.concat(out, "\n")
end

local data, rows = {}, {}
for i = 3, #arg do
  local path = arg[i]
  if not path:find "/meta%.lua$" then
    local file = assert(io.open(root .. "/" .. path, "rb"))
    local text = file:read "a"
    file:close()
    assert(load(text, "@" .. path))
    data[#data + 1] = ("static const char file_%d[] = {\n%s\n  0};\n"):format(i, bytes(text))
    rows[#rows + 1] = ('  {"%s", "@%s", file_%d, sizeof file_%d - 1},'):format(module(path), path, i, i)
  end
end

local file = assert(io.open(output, "wb"))
assert(file:write('/* Made by tools/bundle.lua. */\n#include "host/bundle.h"\n\n', table.concat(data, "\n"),
  "\nconst at_bundled at_bundle[] = {\n", table.concat(rows, "\n"), "\n  {NULL, NULL, NULL, 0}};\n"))
assert(file:close())
