-- mandelbrot.lua [file] [width] [height] - the Mandelbrot set on all processors, as a PPM picture.
--
-- Each row is an index of a parallel loop; the rows come back in order, however they were computed. A bar shows
-- how far it is when standard error is a terminal.

local task = require "asynctask"
local parallel = require "asynctask.parallel"
local fs = require "asynctask.fs"

local await = task.await

local LIMIT = 200 -- iterations

local path, width, height = arg[1] or "mandelbrot.ppm", tonumber(arg[2]) or 900, tonumber(arg[3]) or 600

-- One row as bytes; a job runs it, and width and height travel with it.
local function row(y)
  local bytes = {}
  local ci = (y - 0.5) / height * 2 - 1
  for x = 1, width do
    local cr = (x - 0.5) / width * 3 - 2
    local zr, zi, n = 0.0, 0.0, 0
    while n < LIMIT and zr * zr + zi * zi <= 4 do
      zr, zi = zr * zr - zi * zi + cr, 2 * zr * zi + ci
      n = n + 1
    end
    local shade = n == LIMIT and 0 or math.floor(255 * (n / LIMIT) ^ 0.4)
    bytes[x] = string.char(shade // 3, shade * 2 // 3, shade)
  end
  return table.concat(bytes)
end

local function bar(done, total)
  local filled = 40 * done // total
  io.stderr:write(("\r[%s%s] %3d %%"):format(("#"):rep(filled), ("."):rep(40 - filled), 100 * done // total))
end

task.main(function()
  local shows = os.execute "test -t 2" == true
  local ys = {}
  for y = 1, height do
    ys[y] = y
  end
  local rows = await(parallel.map(ys, row, { progress = shows and bar or nil }))
  if shows then
    io.stderr:write "\n"
  end
  await(fs.write_file(path, ("P6\n%d %d\n255\n"):format(width, height) .. table.concat(rows)))
  print(("%s: %d x %d"):format(path, width, height))
end)
