-- Specs of error objects (S22).

local task = require "asynctask"

describe("an error object", function()
  it("S22: has the fields it was made with", function()
    local e = task.error { code = "ENOENT", message = "no such file or directory", op = "open", path = "notes.txt" }
    assert.are.equal("ENOENT", e.code)
    assert.are.equal("no such file or directory", e.message)
    assert.are.equal("open", e.op)
    assert.are.equal("notes.txt", e.path)
    assert.is_nil(e.address)
  end)

  it("S22: reads like 'op path: message (code)'", function()
    assert.are.equal("open notes.txt: no such file or directory (ENOENT)",
      tostring(task.error { code = "ENOENT", message = "no such file or directory", op = "open", path = "notes.txt" }))
    assert.are.equal("connect 127.0.0.1:80: connection refused (ECONNREFUSED)",
      tostring(task.error { code = "ECONNREFUSED", message = "connection refused", op = "connect",
        address = "127.0.0.1:80" }))
    assert.are.equal("broken (EBAD)", tostring(task.error { code = "EBAD", message = "broken" }))
    assert.are.equal("parse: broken (EBAD)", tostring(task.error { code = "EBAD", message = "broken", op = "parse" }))
  end)

  it("S22: can be concatenated", function()
    local e = task.error { code = "EBAD", message = "broken" }
    assert.are.equal("error: broken (EBAD)", "error: " .. e)
    assert.are.equal("broken (EBAD)!", e .. "!")
    assert.are.equal("broken (EBAD)broken (EBAD)", e .. e)
    assert.are.equal("1broken (EBAD)2", 1 .. e .. 2)
  end)

  it("S22: may have fields of one's own", function()
    local e = task.error { code = "EBAD", message = "x", status = 404, detail = { 1 } }
    assert.are.equal(404, e.status)
    assert.are.same({ 1 }, e.detail)
  end)

  it("S22: of a cancellation has the reason", function()
    local _, err = task.try(task.from_cancelled("user left"))
    assert.are.equal("ECANCELED", err.code)
    assert.are.equal("user left", err.reason)
    assert.matches("ECANCELED", tostring(err))
    assert.matches("user left", tostring(err))
    local _, plain = task.try(task.from_cancelled())
    assert.is_nil(plain.reason)
    assert.matches("ECANCELED", tostring(plain))
  end)

  it("S22: of a deadline has op timeout", function()
    local _, err = pcall(task.with_timeout, 0, task.delay, 60)
    assert.are.equal("ETIMEDOUT", err.code)
    assert.are.equal("timeout", err.op)
    assert.matches("^timeout: .*%(ETIMEDOUT%)$", tostring(err))
  end)

  it("S22: may be raised like any other value", function()
    local e = task.error { code = "EBAD", message = "x" }
    local ok, got = pcall(error, e)
    assert.is_false(ok)
    assert.are.equal(e, got)
  end)

  it("S22: refuses what is no table", function()
    for _, bad in ipairs({ 1, "text", true }) do
      local ok, err = pcall(task.error, bad)
      assert.is_false(ok)
      assert.matches("bad argument #1 to '[%w.]*error'", err)
    end
    assert.is_false((pcall(task.error)))
  end)

  it("S22: whatever its fields are, tostring gives text", function()
    for _, fields in ipairs({ {}, { code = 1 }, { code = {}, message = print }, { message = "m", op = 3, path = {} },
      { reason = setmetatable({}, { __tostring = function() return "odd" end }), code = "ECANCELED" } }) do
      assert.is_string(tostring(task.error(fields)))
    end
  end)
end)
