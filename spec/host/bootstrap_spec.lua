-- ./bootstrap on machines that lack things: every command that it would use is a stand-in here that
-- writes down how it was called.

local child = require("spec.support.child")

local quote = child.quote

describe("bootstrap", function()
  local directory, log

  before_each(function()
    local output, code = child.shell("mktemp -d")
    assert.equal(0, code)
    directory = output:match("^[^\n]+")
    log = directory .. "/log"
    -- what the script may always use: the tools of any POSIX system
    code = select(2, child.shell(("mkdir %s/bin && cd %s/bin && for t in sh dirname sed grep sort tr cat; do "
      .. "ln -s \"$(command -v $t)\" $t || exit 1; done && : > %s"):format(directory, directory, log)))
    assert.equal(0, code)
  end)

  after_each(function()
    child.shell("rm -rf " .. quote(directory))
  end)

  --- Adds a command that logs its arguments and then runs `body`.
  local function stand_in(name, body)
    local f = assert(io.open(directory .. "/bin/" .. name, "w"))
    f:write("#!/bin/sh\necho \"" .. name .. " $*\" >> " .. log .. "\n" .. (body or "exit 0") .. "\n")
    f:close()
    local _, code = child.shell("chmod +x " .. quote(directory .. "/bin/" .. name))
    assert.equal(0, code)
  end

  --- Stand-ins for everything that a build needs.
  local function whole_machine()
    for _, name in ipairs({ "make", "gcc", "pkg-config", "lua5.4" }) do stand_in(name) end
    stand_in("id", "echo 0")
  end

  local function bootstrap(arguments)
    local output, code = child.shell(("PATH=%s/bin sh %s/bootstrap %s"):format(directory, quote(child.root),
      arguments or ""))
    local f = assert(io.open(log))
    local calls = f:read("a")
    f:close()
    return output, code, calls
  end

  it("installs nothing when nothing is missing, and runs make with the target and the arguments", function()
    whole_machine()
    stand_in("apt-get")
    local output, code, calls = bootstrap("demo DIR=/some/dir")
    assert.equal(0, code, output)
    assert.equal("", output)
    assert.is_nil(calls:find("apt-get", 1, true))
    assert.is_truthy(calls:find("make demo DIR=/some/dir\n", 1, true), calls)
  end)

  it("builds all when no target is named", function()
    whole_machine()
    local _, code, calls = bootstrap()
    assert.equal(0, code)
    assert.is_truthy(calls:find("make all\n", 1, true), calls)
  end)

  it("prints the command, installs what a bare machine lacks, then runs make", function()
    stand_in("id", "echo 0")
    -- apt-get brings make, as the real one would
    stand_in("apt-get", "case $* in *install*make*) cp " .. directory .. "/bin/id " .. directory .. "/bin/make.new; "
      .. "printf '#!/bin/sh\\necho \"make $*\" >> " .. log .. "\\n' > " .. directory .. "/bin/make; "
      .. "chmod +x " .. directory .. "/bin/make;; esac")
    child.shell(("cd %s/bin && ln -s $(command -v cp) cp && ln -s $(command -v chmod) chmod"):format(directory))
    local output, code, calls = bootstrap("test")
    assert.equal(0, code, output)
    local install = "apt-get install -y --no-install-recommends "
      .. "curl gcc libc6-dev libcurl4-openssl-dev libglib2.0-dev libhttp-parser-dev liblua5.4-dev libssl-dev "
      .. "libuv1-dev libwslay-dev lua-busted lua-cjson lua-luv lua-redis lua-sec lua-socket lua5.4 make "
      .. (io.open "/usr/sbin/nginx" and "" or "nginx-light ") .. "openssl pkg-config "
      .. (child.shell "ls /usr/lib/postgresql/*/bin/postgres":find "^/" and "" or "postgresql ")
      .. "python3 redis-server spin"
    assert.is_truthy(output:find(install, 1, true), output)
    assert.is_truthy(calls:find("apt-get update", 1, true), calls)
    assert.is_truthy(calls:find(install .. "\n", 1, true), calls)
    assert.is_true(calls:find(install, 1, true) < calls:find("make ", calls:find(install, 1, true) + #install, true))
  end)

  it("asks for luacheck and clang for lint, for busted only where specs run", function()
    whole_machine()
    stand_in("apt-get")
    local _, code, calls = bootstrap("lint")
    assert.equal(0, code)
    assert.is_truthy(calls:find("recommends clang lua-check\n", 1, true), calls)
    assert.is_nil(calls:find("lua-busted", 1, true))
  end)

  it("ext: asks for the libraries of the optional modules, which nothing else needs but specs and lint", function()
    whole_machine()
    stand_in("apt-get")
    stand_in("pkg-config", "case $* in *libcurl*|*wslay*|*http*) exit 1;; esac")
    stand_in("gcc", "grep -q 'curl/\\|wslay/\\|http_parser' && exit 1; exit 0")
    local output, code, calls = bootstrap("ext")
    assert.equal(0, code, output)
    assert.is_truthy(calls:find("recommends libcurl4-openssl-dev libhttp-parser-dev libwslay-dev\n", 1, true), calls)
    assert.is_truthy(calls:find("make ext\n", 1, true), calls)
    code, calls = select(2, bootstrap("all"))
    assert.equal(0, code)
    assert.is_falsy(calls:find("install.*libcurl.*install"), calls)
  end)

  it("uses sudo when it is not root, and says what to run when there is no sudo", function()
    whole_machine()
    stand_in("id", "echo 1000")
    stand_in("apt-get")
    local output, code, calls = bootstrap("valgrind")
    assert.equal(1, code)
    assert.is_truthy(output:find("as root, run: apt-get update && apt-get install valgrind", 1, true), output)
    assert.is_nil(calls:find("apt-get", 1, true))
    stand_in("sudo", "exec \"$@\"")
    output, code, calls = bootstrap("valgrind")
    assert.equal(0, code, output)
    assert.is_truthy(calls:find("sudo apt-get install -y --no-install-recommends valgrind\n", 1, true), calls)
  end)

  it("fails with the names of the packages when the installation fails", function()
    whole_machine()
    stand_in("apt-get", "case $1 in install) exit 100;; esac")
    local output, code, calls = bootstrap("valgrind")
    assert.equal(1, code)
    assert.is_truthy(output:find("the packages that are needed: valgrind", 1, true), output)
    assert.is_nil(calls:find("make ", 1, true), calls)
  end)

  it("names the packages where there is no apt, in the words of the package manager that is there", function()
    stand_in("id", "echo 0")
    local output, code = bootstrap("all")
    assert.equal(1, code)
    assert.is_truthy(output:find("libuv1-dev", 1, true), output)
    stand_in("dnf")
    output, code = bootstrap("all")
    assert.equal(1, code)
    local names = "with dnf: gcc glibc-devel libuv-devel lua lua-devel make pkgconf-pkg-config\n"
    assert.is_truthy(output:find(names, 1, true), output)
  end)
end)
