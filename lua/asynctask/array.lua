-- asynctask.array - arrays of numbers that every job sees without a copy. Everything is in C
-- (csrc/par/array.c); meta.lua describes the methods.

local core = require "asynctask.core"

local native = core.array

---"i8" to "i64": signed integers; "u8" to "u64": unsigned ones (u64 above 2^63 are negative in Lua);
---"f32", "f64": floats.
---@alias asynctask.ElementType "i8"|"i16"|"i32"|"i64"|"u8"|"u16"|"u32"|"u64"|"f32"|"f64"

local M = {
  new = native.new,
  from_list = native.from_list,
  from_string = native.from_string,
}

return M
