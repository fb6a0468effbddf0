-- asynctask.tls where its library is not there.

local child = require "spec.support.child"

describe("asynctask.tls without OpenSSL", function()
  it("says what to install", function()
    local output, code = child.lua [[
      package.preload["asynctask.openssl"] = function() error("no such library", 0) end
      require "asynctask"
      print(pcall(require, "asynctask.tls"))
    ]]
    assert.are.equal(0, code)
    assert.matches("^false\tasynctask%.tls needs OpenSSL: install libssl%-dev .*pkg%-config: openssl", output)
    assert.matches("rock asynctask%-tls\nno such library\n$", output)
  end)
end)
