-- What `make install` puts somewhere: a host is built with nothing but pkg-config, and finds nothing of the
-- checkout. The static library: no name of ours beside the public ones; no file and no dynamic loader at run time.

local child = require "spec.support.child"

local quote = child.quote

describe("make install", function()
  local dir

  setup(function()
    local output = child.shell("mktemp -d")
    dir = output:match("^[^\n]+")
    local built = ""
    for _, name in ipairs({ "config", "libasynctask.a", "asynctask/core.so", "asynctask/curl.so",
      "asynctask/http1.so", "asynctask/openssl.so", "asynctask/wslay.so" }) do
      built = built .. " -o " .. quote(child.build .. "/" .. name)
    end
    local said, code = child.shell(("make -s -C %s BUILD=%s %s install DESTDIR=%s PREFIX=/opt/lua"):format(
      quote(child.root), quote(child.build), built, quote(dir .. "/dest")))
    assert(code == 0, said)
    said = child.shell(("cd %s/dest/opt/lua/lib/pkgconfig && grep -c '^prefix=/opt/lua$' asynctask.pc && "
      .. "sed -i 's|^prefix=.*|prefix=%s/dest/opt/lua|' asynctask.pc"):format(quote(dir), dir))
    assert(said == "1\n", said) -- from here on as if it had been moved there
  end)

  teardown(function()
    child.shell("rm -rf " .. quote(dir))
  end)

  --- A command that uses what was installed.
  local function shell(command)
    return child.shell(("cd / && unset LUA_PATH LUA_CPATH LUA_PATH_5_4 LUA_CPATH_5_4; export "
      .. "PKG_CONFIG_PATH=%s/dest/opt/lua/lib/pkgconfig; %s"):format(quote(dir), command))
  end

  local host = quote(child.root .. "/spec/c/host.c")

  it("pkg-config builds a host, in C and in C++, with gcc and with clang", function()
    if child.sanitizer() then pending("the library needs the sanitizer's flags") end
    for _, compiler in ipairs({ "gcc -Wall -Wextra -Werror", "clang -Wall -Wextra -Werror", "g++ -x c++" }) do
      local _, none = child.shell("command -v " .. compiler:match("^%S+"))
      if none == 0 and not (child.coverage() and not compiler:find "^gcc") then
        for _, static in ipairs({ "", "--static" }) do
          local output, code = shell(("%s -o %s/host %s -x none $(pkg-config %s --cflags --libs asynctask)"):format(
            compiler, quote(dir), host, static))
          assert.equal(0, code, output)
          output, code = shell(("timeout 30 %s/host"):format(quote(dir)))
          assert.equal("the host's script waited\n", output)
          assert.equal(0, code)
        end
      end
    end
  end)

  it("links statically, where the libraries are, and needs neither files nor a loader", function()
    if child.sanitizer() then pending("sanitizers cannot be linked statically") end
    local found = shell("find /usr/lib /usr/local/lib -name 'libuv.a' -o -name 'libuv_a.a' 2>/dev/null | head -1")
    local uv = found:match("([^/\n]+)\n")
    if not uv then pending("there is no static libuv") end
    local output, code = shell(("gcc -static -o %s/static %s $(pkg-config --static --cflags --libs asynctask "
      .. "| sed 's/-luv/-l:%s/')"):format(quote(dir), host, uv))
    if code ~= 0 and output:find("cannot find", 1, true) then pending("there are no static Lua and C libraries") end
    assert.equal(0, code, output)
    output, code = shell(("timeout 30 %s/static; file %s/static 2>/dev/null | grep -c 'dynamically' || true"):format(
      quote(dir), quote(dir)))
    assert.equal("the host's script waited\n0\n", output)
    assert.equal(0, code)
  end)

  it("the library's only global names are asynctask_* and luaopen_asynctask_*", function()
    local output, code = shell(("nm -g --defined-only %s/dest/opt/lua/lib/libasynctask.a"):format(quote(dir)))
    assert.equal(0, code, output)
    local count, declared = 0, {}
    for kind, name in output:gmatch("%x+ (%a) (%S+)") do
      if not name:find("^asynctask_") and not name:find("^luaopen_asynctask_") and not name:find("^__odr_asan") then
        error(("%s %s is global"):format(kind, name))
      end
      declared[name] = true
      count = count + 1
    end
    assert.is_true(count > 40, tostring(count))
    for name in io.lines(child.root .. "/csrc/include/asynctask.h") do
      name = name:match("^ASYNCTASK_API .-([%w_]+)%(")
      if name then assert.is_true(declared[name], name .. " is declared, and not there") end
    end
  end)

  it("a host may use any other name, even one of ours", function()
    if child.sanitizer() then pending("the library needs the sanitizer's flags") end
    local f = assert(io.open(dir .. "/names.c", "w"))
    f:write("int at_runtime_open = 1, at_task_new = 2, at_bundle = 3, at_post = 4;\n")
    f:close()
    local output, code = shell(("gcc -o %s/names %s %s/names.c $(pkg-config --cflags --libs asynctask) && "
      .. "timeout 30 %s/names"):format(quote(dir), host, quote(dir), quote(dir)))
    assert.equal("the host's script waited\n", output)
    assert.equal(0, code)
  end)

  it("uninstall leaves nothing", function()
    local dest = quote(dir .. "/dest")
    local output, code = child.shell(("make -s -C %s BUILD=%s uninstall DESTDIR=%s PREFIX=/opt/lua && find %s -type f")
      :format(quote(child.root), quote(child.build), dest, dest))
    assert.equal("", output)
    assert.equal(0, code)
  end)
end)
