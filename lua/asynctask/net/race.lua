-- race.lua - "happy eyeballs": connecting to one of several addresses (RFC 8305). Pure policy: what an
-- attempt is, its caller says.

local core = require "asynctask.core"

local await, delay, when_any = core.await, core.delay, core.when_any

local race = {
  STAGGER = 0.25, -- seconds; RFC 8305, section 8: Connection Attempt Delay
}

---The addresses with their families taking turns, the family of the first one first; each family keeps
---its order (RFC 8305, section 4, with a First Address Family Count of 1).
---@param addresses { host: string, family: string }[]
---@return { host: string, family: string }[]
function race.order(addresses)
  local first = addresses[1] and addresses[1].family
  local same, other, ordered = {}, {}, {}
  for _, address in ipairs(addresses) do
    local list = address.family == first and same or other
    list[#list + 1] = address
  end
  for i = 1, math.max(#same, #other) do
    ordered[#ordered + 1] = same[i]
    ordered[#ordered + 1] = other[i]
  end
  return ordered
end

-- The attempts that did not win, or all of them when the race is cancelled.
local function drop_losers(pending)
  for _, t in pairs(pending) do
    t:cancel("another address answered")
    if t:status() == "succeeded" then
      t:result():close()
    else
      t:error() -- it counts as seen
    end
  end
end

local pending_meta = { __close = drop_losers }

-- Waits until an attempt has settled (its key is returned) or, if there are more addresses, for the stagger.
local function wait_any(pending, more, stagger)
  local waited = { timer = more and delay(stagger) or nil }
  for i, t in pairs(pending) do
    waited[i] = t
  end
  local _, key = await(when_any(waited))
  if key == "timer" then
    return nil
  elseif waited.timer then
    waited.timer:cancel()
  end
  return key
end

---Calls `dial(address)`, which returns a Task of a stream, for the first address, and for each next one
---when the last attempt has failed or `stagger` seconds have passed. The first that succeeds wins, the
---others are cancelled. When all fail, the failure of the first address is raised. Waits.
---@param addresses any[] not empty
---@param dial fun(address: any): asynctask.Task
---@param stagger number seconds
---@return asynctask.Stream stream of the winner
function race.run(addresses, dial, stagger)
  local pending <close> = setmetatable({}, pending_meta) -- place in the list -> Task
  local started, failures = 0, {}
  while true do
    if addresses[started + 1] then
      started = started + 1
      pending[started] = dial(addresses[started])
    elseif next(pending) == nil then
      error(failures[1], 0)
    end
    local i = wait_any(pending, addresses[started + 1] ~= nil, stagger)
    local t = i and pending[i]
    if t then
      pending[i] = nil
      if t:status() == "succeeded" then
        return await(t)
      end
      failures[i] = t:error() -- the next address begins at once
    end
  end
end

return race
