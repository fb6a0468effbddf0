-- asynctask.h itself: any compiler takes it, and the table for C modules has every function.

local cc = require "spec.support.cc"
local child = require "spec.support.child"

local function read(path)
  local f <close> = assert(io.open(child.root .. "/" .. path))
  return f:read "a"
end

describe("asynctask.h", function()
  it("compiles as C99, C11 and C++11 without a warning", function()
    local source = os.tmpname()
    finally(function() os.remove(source) os.remove(source .. ".o") end)
    local f = assert(io.open(source, "w"))
    f:write "#include <asynctask.h>\nextern int version(lua_State *L);\n"
    f:write "int version(lua_State *L) { return asynctask_import(L)->version; }\n"
    f:close()
    local tried = 0
    for _, compiler in ipairs { "gcc -std=c99 -x c", "gcc -std=c11 -x c", "g++ -std=c++11 -x c++",
      "clang -std=c99 -x c", "clang++ -std=c++11 -x c++" } do
      local _, missing = child.shell("command -v " .. compiler:match "%S+")
      if missing == 0 then
        tried = tried + 1
        local output, code = child.shell(("cd %s && %s -Wall -Wextra -Wpedantic -Werror -Icsrc/include "
          .. "$(pkg-config --cflags lua5.4) -c %s -o %s.o"):format(child.quote(child.root), compiler, source, source))
        assert.equal(0, code, compiler .. ": " .. output)
      end
    end
    assert.is_true(tried > 0)
  end)

  it("has every function in the table, in the order of their declarations", function()
    local header, body = read "csrc/include/asynctask.h", read "csrc/host/api.c"
    local declared, fields = {}, {}
    for name in header:gmatch "\nASYNCTASK_API [^\n(]-asynctask_([%w_]+)%(" do
      if name ~= "core" and name ~= "preload" then declared[#declared + 1] = name end -- those open it
    end
    local struct = header:match "typedef struct asynctask_api {(.-)\n} asynctask_api;"
    for name in struct:gmatch "%(%*([%w_]+)%)%(" do
      if not (name == "f" or name == "push") then fields[#fields + 1] = name end
    end
    assert.is_true(#declared > 50)
    assert.same(declared, fields)
    for _, name in ipairs(declared) do
      assert.is_truthy(body:find(("\n    .%s = asynctask_%s,\n"):format(name, name), 1, true), name)
    end
    for major, minor, patch in header:gmatch '#define ASYNCTASK_VERSION "(%d+)%.(%d+)%.(%d+)"' do
      assert.is_truthy(header:find("#define ASYNCTASK_VERSION_MAJOR " .. major .. "\n", 1, true))
      assert.is_truthy(header:find("#define ASYNCTASK_VERSION_MINOR " .. minor .. "\n", 1, true))
      assert.is_truthy(header:find("#define ASYNCTASK_VERSION_PATCH " .. patch .. "\n", 1, true))
    end
  end)
end)

describe("asynctask_import", function()
  local api = cc.load "apimodule"

  it("refuses another version, with words that say which", function()
    finally(api.restore)
    local version, size = api.restore()
    local mine = ("%d.%d.%d"):format(version // 10000, version // 100 % 100, version % 100)
    assert.is_true(api.import(version, size))
    assert.is_true(api.import(version + 1, size + 8))
    local function refusal(...)
      local ok, e = pcall(api.import, ...)
      assert.is_false(ok)
      return e
    end
    assert.equal("this module was built for asynctask " .. mine .. ", but 0.1.0 is loaded", refusal(100, size))
    assert.equal("this module was built for asynctask " .. mine .. ", but 0.99.3 is loaded", refusal(9903, size))
    assert.equal("this module was built for asynctask " .. mine .. ", but 1.0.0 is loaded", refusal(10000, size))
    assert.equal("this module needs asynctask " .. mine .. ", but the older " .. mine .. " is loaded",
      refusal(version, size - 8))
    assert.equal("this module needs asynctask " .. mine .. "; the one that is loaded has no C API", refusal(0, 0))
  end)

  it("loads asynctask, or says that it is missing", function()
    local directory = cc.module "apimodule"
    local output, code = child.lua(([[
      package.cpath = %q .. "/?.so;" .. package.cpath
      print(type(require("apimodule").spawn), package.loaded["asynctask.core"] ~= nil)
    ]]):format(directory))
    assert.equal("function\ttrue\n", output)
    assert.equal(0, code)
    output = child.lua(([[
      package.path, package.cpath = "", %q .. "/?.so"
      print(pcall(require, "apimodule"))
      require = nil
      print(pcall(package.loadlib(%q .. "/apimodule.so", "luaopen_apimodule")))
    ]]):format(directory, directory))
    assert.matches("false\tthis module needs asynctask %d+%.%d+%.%d+: module 'asynctask.core' not found", output)
    assert.matches("false\tasynctask is not loaded in this state, and there is no 'require' to load it with", output)
  end)
end)
