-- native.lua - the C part of the server (csrc/ext/http1), or a clear error where it was not built.

local found, http1 = pcall(require, "asynctask.http1")
if not found then
  error("asynctask.http's server needs a parser: install llhttp (pkg-config: libllhttp) or http-parser (Debian: " ..
    "libhttp-parser-dev; header: http_parser.h) and build asynctask again\n" .. tostring(http1), 0)
end

---@class asynctask.http1
---@field parser fun(meta: table, line: integer, fields_size: integer, fields: integer): userdata
---@field head fun(parser: userdata, bytes: string, from?: integer): table|false|nil, integer?, any, integer?
---@field body fun(parser: userdata, bytes: string, from?: integer): string|false, integer, boolean|string
---@field begun fun(parser: userdata): boolean
---@field trailers fun(parser: userdata): table
---@field fields fun(head: string, first: integer, last: integer): table
---@field query fun(text: string): table
---@field decode fun(text: string, plus?: boolean): string?
---@field response fun(status: integer, headers?: table, body?: string, mode: integer): string, integer, integer?
---@field interim fun(status: integer, headers?: table): string
---@field last_chunk fun(trailers?: table): string
---@field date fun(time?: integer): string
---@field library string name and version of the parser
return http1
