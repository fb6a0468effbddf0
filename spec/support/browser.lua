-- A real browser for specs: headless Chromium, driven by chromedriver (W3C WebDriver) over plain HTTP.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"
local child = require "spec.support.child"

local await = task.await

local browser = {}

--- The browser's command, or nil and what is missing.
---@return string?
---@return string?
function browser.command()
  for _, name in ipairs { "chromium", "chromium-browser", "google-chrome" } do
    if select(2, child.shell(("command -v %s && command -v chromedriver"):format(name))) == 0 then
      return name
    end
  end
  return nil, "chromium and chromedriver are not installed"
end

local Browser = {}
Browser.__index = Browser

local function json()
  return require("asynctask.http").json
end

-- Sends a request and reads its answer: status and body.
local function ask(port, bytes)
  local stream <close> = await(net.connect("127.0.0.1", port))
  await(stream:write(bytes))
  local head = await(stream:read_until("\r\n\r\n"))
  local size = tonumber(head:lower():match "content%-length: *(%d+)")
  return head:match "^HTTP/1%.1 (%d+)", await(stream:read(size))
end

-- One command of WebDriver; gives its value.
local function command(self, method, path, body)
  local text = body and json().encode(body) or ""
  local status, data = task.with_timeout(60, ask, self.port, ("%s %s HTTP/1.1\r\nHost: localhost\r\n"
    .. "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"):format(method, path, #text, text))
  assert(status == "200", data)
  return json().decode(data).value
end

--- Opens one more window of its own and gives it.
---@param url string
function Browser:open(url)
  local window = command(self, "POST", self.session .. "/window/new", { type = "window" })
  command(self, "POST", self.session .. "/window", { handle = window.handle })
  command(self, "POST", self.session .. "/url", { url = url })
  return window.handle
end

--- Makes a window the one that the other calls mean.
function Browser:use(handle)
  command(self, "POST", self.session .. "/window", { handle = handle })
end

--- What a function's body returns in the page.
function Browser:run(script)
  return command(self, "POST", self.session .. "/execute/sync", { script = script, args = { "" } })
end

--- Waits until the script gives something true, and gives that.
function Browser:wait_for(script)
  for _ = 1, 600 do
    local value = self:run(script)
    if value and value ~= json().null then return value end
    await(task.delay(0.05))
  end
  error("waited in vain for " .. script)
end

--- Writes a picture of the window (PNG).
function Browser:screenshot(path)
  local text = command(self, "GET", self.session .. "/screenshot")
  local f = assert(io.popen("base64 -d >" .. child.quote(path), "w"))
  f:write(text)
  f:close()
end

function Browser:close()
  pcall(command, self, "DELETE", self.session)
  self.driver:kill()
  await(self.driver:wait())
  await(fs.remove(self.profile, { recursive = true }))
end

--- Starts a browser.
function browser.new()
  local program = assert(browser.command())
  local profile = await(fs.mkdtemp())
  local driver = await(process.spawn("chromedriver", { "--port=0" },
    { stdin = "ignore", stdout = "pipe", stderr = "ignore" }))
  local self = setmetatable({ driver = driver, profile = profile }, Browser)
  for line in driver.stdout:lines() do
    self.port = tonumber(line:match "successfully on port (%d+)")
    if self.port then break end
  end
  local path = child.shell("command -v " .. program):match "%S+"
  local session = command(self, "POST", "/session", { capabilities = { alwaysMatch = {
    browserName = "chrome",
    ["goog:chromeOptions"] = { binary = path, args = {
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--user-data-dir=" .. profile,
      "--window-size=800,600",
    } },
  } } })
  self.session = "/session/" .. session.sessionId
  return self
end

return browser
