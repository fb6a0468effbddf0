-- The Makefile's promises that a build does not show by itself.

local child = require("spec.support.child")

local quote = child.quote

--- The command that runs make on the build under test as it is: -o keeps it from building that again.
local function command(arguments)
  return ("make -s -C %s BUILD=%s -o %s -o %s %s"):format(quote(child.root), quote(child.build),
    quote(child.build .. "/asynctask/core.so"), quote(child.build .. "/libasynctask.a"), arguments)
end

local function make(arguments)
  return child.shell(command(arguments))
end

describe("make", function()
  it("env prints variables with which a script runs against the checkout", function()
    local output, code = make("env")
    assert.equal(0, code, output)
    assert.is_truthy(output:find("^export LUA_PATH='.* LUA_CPATH='[^\n]*\n$"), output)
    if child.sanitizer() then return end -- the stock interpreter does not load that build
    output, code = child.shell(("cd / && export LUA_PATH_5_4=/nowhere && eval \"$(%s)\" && %s -e %s"):format(
      command("env"), child.interpreter(), quote("print(type(require('asynctask').await))")))
    assert.equal("function\n", output)
    assert.equal(0, code)
  end)

  it("env keeps what the variables held", function()
    local output = child.shell(("LUA_PATH='/mine/?.lua' && export LUA_PATH && eval \"$(%s)\" && echo \"$LUA_PATH\"")
      :format(command("env")))
    assert.is_truthy(output:find(";/mine/?.lua\n", 1, true), output)
  end)

  it("names ./bootstrap when something is missing, and installs nothing", function()
    for arguments, target in pairs({
      ["test LUA=no-such-lua"] = "test",
      ["demo LUA=no-such-lua"] = "demo",
      ["lint-c CLANG=no-such-clang"] = "lint",
      ["check-tools LUACHECK=no-such-luacheck"] = "lint",
      ["valgrind VALGRIND=no-such-valgrind"] = "valgrind",
      ["asan GCC=no-such-gcc"] = "asan",
    }) do
      local output, code = make(arguments)
      assert.not_equal(0, code, arguments)
      assert.is_truthy(output:find("run ./bootstrap " .. target, 1, true), output)
      assert.is_truthy(output:find("no-such-", 1, true), output)
    end
  end)

  it("names what is missing for a build", function()
    local directory = child.shell("mktemp -d"):match("^[^\n]+")
    finally(function() child.shell("rm -rf " .. quote(directory)) end)
    local function attempt(arguments)
      return child.shell(("make -s -C %s BUILD=%s/build %s"):format(quote(child.root), directory, arguments))
    end
    local output, code = attempt("CC=no-such-cc")
    assert.not_equal(0, code)
    assert.is_truthy(output:find("a C compiler is missing (no-such-cc): run ./bootstrap", 1, true), output)
    output, code = attempt("LUA_CFLAGS=-I/no/such/directory CFLAGS=-nostdinc")
    assert.not_equal(0, code)
    assert.is_truthy(output:find("run ./bootstrap", 1, true), output)
    output, code = attempt("LUA_CFLAGS=-DLUA_NOT_HERE")
    assert.not_equal(0, code)
    assert.is_truthy(output:find("lua.h", 1, true), output)
  end)

  it("help lists every target", function()
    local output, code = make("help")
    assert.equal(0, code)
    for _, target in ipairs({ "all", "env", "test", "demo", "install", "lint", "asan", "tsan", "valgrind", "bench",
      "clean", "help" }) do
      assert.is_truthy(output:find("\n" .. target .. " ", 1, true) or output:find("^" .. target .. " "), target)
    end
  end)
end)
