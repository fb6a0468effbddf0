-- fan_out.lua [n] - one question, many ways to ask: jobs on all cores, the first answer of several,
-- work with a limit, and a deadline for all of it.

local task = require "asynctask"

local await = task.await

-- Runs on a pool thread: the function and what it uses of its surroundings are copied there.
local function count_primes(from, to)
  local count = 0
  for n = math.max(2, from), to do
    local prime = true
    for d = 2, math.floor(math.sqrt(n)) do
      if n % d == 0 then
        prime = false
        break
      end
    end
    count = count + (prime and 1 or 0)
  end
  return count
end

-- Eight jobs at once; when_all gives their results in the order of the jobs.
local function primes_below(n)
  local jobs, step = {}, n // 8 + 1
  for from = 1, n, step do
    jobs[#jobs + 1] = task.run(count_primes, from, math.min(n, from + step - 1))
  end
  local sum = 0
  for _, count in ipairs(await(task.when_all(jobs))) do
    sum = sum + count
  end
  return sum
end

-- Something that answers after a while, as a server elsewhere would.
local mirror = task.async(function(name, seconds)
  await(task.delay(seconds))
  return name
end)

task.main(function(n)
  task.with_timeout(30, function()
    print(("primes up to %d: %d"):format(n, primes_below(n)))

    -- The first of three; the others are cancelled.
    print("fastest mirror: " .. await(task.race(mirror("far", 0.3), mirror("near", 0.01), mirror("middle", 0.1))))

    -- Ten things, at most three at a time; the results are in order.
    local names = await(task.map({ "a", "b", "c", "d", "e", "f", "g", "h", "i", "j" }, function(letter, i)
      return mirror(letter .. i, 0.01)
    end, { limit = 3 }))
    print("mapped: " .. table.concat(names, " "))

    -- As they come.
    for t in task.when_each(mirror("third", 0.03), mirror("first", 0.01), mirror("second", 0.02)) do
      print("answered: " .. await(t))
    end
  end)
end, tonumber(arg[1]) or 200000)
