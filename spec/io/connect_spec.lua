-- Connecting to names (RFC 8305) on a virtual clock, and the options of connect.

local task = require "asynctask"
local net = require "asynctask.net"
local race = require "asynctask.net.race"
local testing = require "asynctask.testing"

local await, try, delay, spawn = task.await, task.try, task.delay, task.spawn

-- Addresses by name, and what becomes of an attempt: seconds until it succeeds, or fails if negative.
-- `log` has what happened when, on the clock.
local function dialler(clock, fates)
  local log, open, began = {}, {}, clock:now()
  local function note(what)
    log[#log + 1] = ("%.2f %s"):format(clock:now() - began, what)
  end
  local function dial(address)
    note("begin " .. address)
    return task.spawn(function()
      local fate = fates[address]
      local cut <close> = setmetatable({ cut = true }, { __close = function(self)
        if self.cut then note("cut " .. address) end
      end })
      await(delay(math.abs(fate)))
      cut.cut = false
      if fate < 0 then
        error("refused " .. address, 0)
      end
      open[address] = true
      return { name = address, close = function() open[address] = nil end }
    end)
  end
  return dial, log, open
end

describe("racing addresses", function()
  local function raced(addresses, fates)
    local clock <close> = testing.clock { auto = true }
    local dial, log, open = dialler(clock, fates)
    local stream, err = try(spawn(race.run, addresses, dial, race.STAGGER))
    testing.settle()
    return stream and stream.name, err, log, open
  end

  it("takes turns between families, the first one's first", function()
    local function a(host, family) return { host = host, family = family } end
    local ordered = race.order {
      a("6a", "ipv6"), a("6b", "ipv6"), a("6c", "ipv6"), a("4a", "ipv4"), a("4b", "ipv4"),
    }
    local names = {}
    for i, address in ipairs(ordered) do names[i] = address.host end
    assert.are.same({ "6a", "4a", "6b", "4b", "6c" }, names)
    assert.are.same({}, race.order {})
    assert.are.equal("4", race.order({ a("4", "ipv4"), a("6", "ipv6") })[1].host)
  end)

  it("stays with the first address when it answers within 250 ms", function()
    local name, _, log = raced({ "six", "four" }, { six = 0.2, four = 0.01 })
    assert.are.equal("six", name)
    assert.are.same({ "0.00 begin six" }, log)
  end)

  it("begins the next one after 250 ms, and closes the losers", function()
    local name, _, log, open = raced({ "six", "four", "more" }, { six = 5, four = 0.1, more = 1 })
    assert.are.equal("four", name)
    assert.are.same({ "0.00 begin six", "0.25 begin four", "0.35 cut six" }, log)
    assert.are.same({ four = true }, open)
  end)

  it("lets an early attempt win while a later one is under way", function()
    local name, _, log, open = raced({ "six", "four" }, { six = 0.3, four = 0.2 })
    assert.are.equal("six", name)
    assert.are.same({ "0.00 begin six", "0.25 begin four", "0.30 cut four" }, log)
    assert.are.same({ six = true }, open)
  end)

  it("begins the next one at once when one fails", function()
    local name, _, log = raced({ "a", "b", "c" }, { a = -0.01, b = -0.02, c = 0.01 })
    assert.are.equal("c", name)
    assert.are.same({ "0.00 begin a", "0.01 begin b", "0.03 begin c" }, log)
  end)

  it("closes a loser that has succeeded in the same turn", function()
    local name, _, _, open = raced({ "a", "b" }, { a = 0.5, b = 0.25 })
    local count = 0
    for _ in pairs(open) do count = count + 1 end
    assert.are.equal(1, count)
    assert.is_true(open[name])
  end)

  it("raises the failure of the first address when all fail", function()
    local name, err, log = raced({ "a", "b" }, { a = -1, b = -0.1 })
    assert.is_nil(name)
    assert.are.equal("refused a", err)
    assert.are.same({ "0.00 begin a", "0.25 begin b" }, log)
  end)

  it("S10: ends all attempts when it is cancelled", function()
    local clock <close> = testing.clock()
    local dial, log, open = dialler(clock, { a = 9, b = 9 })
    local t = spawn(race.run, { "a", "b" }, dial, race.STAGGER)
    clock:advance(0.3)
    t:cancel()
    testing.settle()
    assert.are.equal("cancelled", t:status())
    table.sort(log)
    assert.are.same({ "0.00 begin a", "0.25 begin b", "0.30 cut a", "0.30 cut b" }, log)
    assert.are.same({}, open)
  end)
end)

describe("connect", function()
  local function served(f, ...)
    local server <close> = await(net.listen("127.0.0.1", 0))
    local port = server:sockname().port
    local client <close> = await(net.connect(f or "127.0.0.1", port, ...))
    local peer <close> = await(server:accept())
    return client:sockname(), peer:peername()
  end

  it("goes to the address of a name that answers", function()
    local server <close> = await(net.listen("127.0.0.1", 0)) -- nobody listens at ::1
    local client <close> = await(net.connect("localhost", server:sockname().port, { timeout = 5 }))
    assert.are.equal("127.0.0.1", client:peername().host)
  end)

  it("may choose the family", function()
    local own = served("localhost", { family = "ipv4" })
    assert.are.equal("ipv4", own.family)
    local server <close> = await(net.listen("127.0.0.1", 0))
    local stream, err = try(net.connect("localhost", server:sockname().port, { family = "ipv6" }))
    assert.is_nil(stream)
    assert.is_truthy(err.code)
  end)

  it("may choose the local address and port", function()
    local own, seen = served(nil, { local_address = "127.0.0.2" })
    assert.are.equal("127.0.0.2", own.host)
    assert.are.same(own, seen)
    local port = own.port
    own = served(nil, { local_port = port })
    assert.are.equal(port, own.port)
    assert.is_false((pcall(net.connect, "127.0.0.1", 1, { local_address = "localhost" })))
    local server <close> = await(net.listen("127.0.0.1", 0))
    local stream, err = try(net.connect("127.0.0.1", server:sockname().port, { local_address = "192.0.2.1" }))
    assert.is_nil(stream)
    assert.are.equal("EADDRNOTAVAIL", err.code)
  end)

  it("sets keepalive, nodelay and fast open", function()
    for _, opts in ipairs { { keepalive = true }, { keepalive = 12.5 }, { nodelay = false }, { fastopen = true } } do
      local server <close> = await(net.listen("127.0.0.1", 0, { fastopen = 16 }))
      local client <close> = await(net.connect("127.0.0.1", server:sockname().port, opts))
      await(client:write("data with the SYN, maybe\n"))
      local peer <close> = await(server:accept())
      assert.are.equal("data with the SYN, maybe", await(peer:read()))
      await(peer:write("back\n"))
      assert.are.equal("back", await(client:read()))
    end
    assert.is_false((pcall(net.connect, "127.0.0.1", 1, { keepalive = "yes" })))
  end)

  it("shows and sets the sizes of buffers", function()
    local a, b = await(net.pair())
    local size = a:send_buffer_size()
    assert.is_true(size > 0)
    assert.is_true(a:send_buffer_size(65536) >= 65536)
    assert.is_true(b:recv_buffer_size(32768) >= 32768)
    assert.is_false((pcall(a.send_buffer_size, a, 0)))
    await(a:close())
    await(b:close())
    local none, err = a:recv_buffer_size()
    assert.is_nil(none)
    assert.are.equal("EBADF", err.code)
  end)
end)

describe("names", function()
  it("are found by getaddrinfo, with services", function()
    local list = await(net.resolve("127.0.0.1", { service = "80" }))
    assert.are.same({ { host = "127.0.0.1", port = 80, family = "ipv4" } }, list)
    local found, err = try(net.resolve("127.0.0.1", { service = "no-such-service" }))
    assert.is_nil(found)
    assert.is_truthy(err.code:find("^EAI_"))
    assert.is_false((pcall(net.resolve, "localhost", { service = 80 })))
  end)

  it("are found for addresses", function()
    local name, service = try(net.lookup("127.0.0.1", 1))
    if not name and service.code == "EAI_NONAME" and not io.open("/etc/hosts") then
      pending("nothing knows a name for 127.0.0.1 here (no /etc/hosts)")
    end
    assert.are.equal("string", type(name))
    assert.is_true(#name > 0 and #service > 0)
    assert.is_false((pcall(net.lookup, "localhost")))
    assert.is_false((pcall(net.lookup, "127.0.0.1", "http")))
  end)

  it("many at once all come, in no more threads than they may use", function()
    local list = {}
    for i = 1, 200 do
      list[i] = net.resolve("127.0.0." .. i)
    end
    local cancelled = net.resolve("localhost")
    cancelled:cancel()
    assert.are.equal("cancelled", cancelled:status())
    for i, addresses in ipairs(await(task.when_all(list))) do
      assert.are.equal("127.0.0." .. i, addresses[1].host)
    end
  end)
end)
