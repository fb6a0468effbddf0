-- The rock and the tree say the same, and the rock builds.

local child = require("spec.support.child")

--- Loads a rockspec as LuaRocks does: with an empty environment.
-- The rock itself, whose file alone lies at the top so that `luarocks make` finds it; or one of those beside it.
local function rockspec(name)
  local rock = {}
  local path = name and "/rocks/" .. name or "/asynctask"
  local chunk = assert(loadfile(child.root .. path .. "-scm-1.rockspec", "t", rock))
  chunk()
  return rock
end

local function files(pattern, kind)
  local output, code = child.shell(("cd %s && find %s -type f -name '%s' | LC_ALL=C sort")
    :format(child.quote(child.root), pattern, kind))
  assert.equal(0, code)
  local list = {}
  for line in output:gmatch("[^\n]+") do list[#list + 1] = line end
  return list
end

local function version_of_header()
  local f = assert(io.open(child.root .. "/csrc/include/asynctask.h"))
  local text = f:read("a")
  f:close()
  return text:match('#define ASYNCTASK_VERSION "([^"]+)"'), text
end

describe("the rockspec", function()
  local rock = rockspec()

  it("lists every C source of csrc/ but the optional modules', and nothing else", function()
    local sources = {}
    for _, name in ipairs(rock.build.modules["asynctask.core"].sources) do sources[#sources + 1] = name end
    table.sort(sources)
    local present = {}
    for _, name in ipairs(files("csrc", "*.c")) do
      if not name:find("^csrc/ext/") then present[#present + 1] = name end
    end
    assert.is_true(#present > 0)
    assert.same(present, sources)
  end)

  it("lists every Lua file of lua/, each under its module's name", function()
    local expected, listed = {}, {}
    for _, name in ipairs(files("lua", "*.lua")) do
      local module = name:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
      expected[module] = name
    end
    for module, value in pairs(rock.build.modules) do
      if type(value) == "string" then listed[module] = value end
    end
    assert.same(expected, listed)
  end)

  it("is complete: format, dependencies, licence, what it installs beside the modules", function()
    assert.equal("3.0", rock.rockspec_format)
    assert.equal("asynctask", rock.package)
    assert.equal("scm-1", rock.version)
    assert.equal("builtin", rock.build.type)
    assert.same({ "lua ~> 5.4" }, rock.dependencies)
    assert.same({ UV = { header = "uv.h", library = "uv" } }, rock.external_dependencies)
    assert.same({ "docs" }, rock.build.copy_directories)
    assert.equal("MIT", rock.description.license)
    for _, field in ipairs({ "summary", "detailed", "homepage", "issues_url", "maintainer", "labels" }) do
      assert.is_truthy(rock.description[field], field)
    end
  end)

  it("agrees with the Makefile and the header on the version", function()
    local version, header = version_of_header()
    local f = assert(io.open(child.root .. "/Makefile"))
    local makefile = f:read("a")
    f:close()
    assert.equal(version, makefile:match("\nVERSION := ([%d.]+)\n"))
    local parts = {}
    for _, part in ipairs({ "MAJOR", "MINOR", "PATCH" }) do
      parts[#parts + 1] = header:match("#define ASYNCTASK_VERSION_" .. part .. " (%d+)\n")
    end
    assert.equal(version, table.concat(parts, "."))
  end)
end)

-- Rocks of the optional modules in csrc/ext: package -> module, folder.
for package, modules in pairs {
  ["asynctask-tls"] = { ["asynctask.openssl"] = "csrc/ext/openssl" },
  ["asynctask-http"] = {
    ["asynctask.curl"] = "csrc/ext/curl", ["asynctask.http1"] = "csrc/ext/http1",
    ["asynctask.wslay"] = "csrc/ext/wslay",
  },
} do
  describe("the rockspec of " .. package, function()
    it("lists every C source of its modules, and needs the rock asynctask", function()
      local rock = rockspec(package)
      assert.equal(package, rock.package)
      assert.equal("scm-1", rock.version)
      local listed, present = {}, {}
      for name, built in pairs(rock.build.modules) do listed[name] = built.sources end
      for name, folder in pairs(modules) do present[name] = files(folder, "*.c") end
      assert.same(present, listed)
      assert.same({ "lua ~> 5.4", "asynctask" }, rock.dependencies)
      for _, field in ipairs { "summary", "detailed", "homepage", "issues_url", "maintainer", "labels", "license" } do
        assert.is_truthy(rock.description[field], field)
      end
    end)
  end)
end

describe("installing", function()
  local directory

  before_each(function()
    local output, code = child.shell("mktemp -d")
    assert.equal(0, code)
    directory = output:match("^[^\n]+")
  end)

  after_each(function()
    child.shell("rm -rf " .. child.quote(directory))
  end)

  --- Copies what a clean clone would have into a directory of its own.
  local function clone(to)
    local _, code = child.shell(("cd %s && mkdir -p %s && cp -r *.rockspec Makefile LICENSE csrc lua docs %s && "
      .. "find %s -name '*.o' -delete"):format(child.quote(child.root), child.quote(to), child.quote(to),
      child.quote(to)))
    assert.equal(0, code)
  end

  --- Installs the build under test as it is: -o keeps make from building it again.
  local function install(prefix)
    local output, code = child.shell(("make -s -C %s BUILD=%s -o %s -o %s install PREFIX=%s"):format(
      child.quote(child.root), child.quote(child.build), child.quote(child.build .. "/asynctask/core.so"),
      child.quote(child.build .. "/libasynctask.a"), child.quote(prefix)))
    assert.equal(0, code, output)
  end

  local PROBE = "local t = require 'asynctask' "
    .. "print(t.await(t.spawn(function() t.await(t.delay(0.001)) return 'works' end)))"

  --- Uses what was installed at `share` and `lib`, and nothing of the checkout.
  local function try(share, lib)
    return child.shell(("cd / && unset LUA_PATH_5_4 LUA_CPATH_5_4; LUA_PATH=%s LUA_CPATH=%s timeout 20 %s -e %s")
      :format(child.quote(share .. "/?.lua;" .. share .. "/?/init.lua"), child.quote(lib .. "/?.so"),
        child.interpreter(), child.quote(PROBE)))
  end

  it("luarocks make --tree builds it from a clean clone, and what it installed works", function()
    if child.sanitizer() then pending("the rock has no sanitizer") end
    local _, none = child.shell("luarocks --lua-version 5.4 --version")
    if none ~= 0 then pending("luarocks is not installed") end
    local source, tree = directory .. "/source", directory .. "/tree"
    clone(source)
    local output, code = child.shell(("cd %s && HOME=%s timeout 300 luarocks --lua-version 5.4 make --tree %s"):format(
      child.quote(source), child.quote(directory), child.quote(tree)))
    assert.equal(0, code, output)
    assert.is_nil(output:find("warning:", 1, true), output)
    local said, status = try(tree .. "/share/lua/5.4", tree .. "/lib/lua/5.4")
    assert.equal("works\n", said)
    assert.equal(0, status)
  end)

  it("make install PREFIX= puts modules, header and pkg-config file where they belong", function()
    if child.sanitizer() then pending("installs the build without sanitizer") end
    local prefix = directory .. "/a prefix"
    install(prefix)
    local said, status = try(prefix .. "/share/lua/5.4", prefix .. "/lib/lua/5.4")
    assert.equal("works\n", said)
    assert.equal(0, status)
    local version = version_of_header()
    said = child.shell(("PKG_CONFIG_PATH=%s pkg-config --modversion asynctask"):format(
      child.quote(prefix .. "/lib/pkgconfig")))
    assert.equal(version .. "\n", said)
  end)

  it("a C host that links the installed library runs a script", function()
    if child.sanitizer() then pending("installs the build without sanitizer") end
    local prefix = directory .. "/prefix"
    install(prefix)
    local output, code = child.shell(("cd %s && PKG_CONFIG_PATH=%s gcc -Wall -Wextra -Werror -o %s/host spec/c/host.c "
      .. "$(PKG_CONFIG_PATH=%s pkg-config --static --cflags --libs asynctask lua5.4)"):format(
      child.quote(child.root), child.quote(prefix .. "/lib/pkgconfig"), child.quote(directory),
      child.quote(prefix .. "/lib/pkgconfig")))
    if code ~= 0 and output:find("Package lua5.4 was not found", 1, true) then
      pending("pkg-config does not know lua5.4")
    end
    assert.equal(0, code, output)
    output, code = child.shell(("cd / && LUA_PATH=%s LUA_CPATH= timeout 20 %s/host"):format(
      child.quote(prefix .. "/share/lua/5.4/?.lua;" .. prefix .. "/share/lua/5.4/?/init.lua"), child.quote(directory)))
    assert.equal("the host's script waited\n", output)
    assert.equal(0, code)
  end)
end)
