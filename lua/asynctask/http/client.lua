-- client.lua - the HTTP client (issue 8): clients with connections of their own, and the functions of the facade, which
-- are those of a client that every state has. Here are arguments and defaults; exchange.lua makes the calls.

local core = require "asynctask.core"
local bodies = require "asynctask.http.client.body"
local check = require "asynctask.check"
local escape = require "asynctask.http.client.escape"
local exchange = require "asynctask.http.client.exchange"
local json = require "asynctask.http.json"
local names = require "asynctask.http.client.names"
local native = require "asynctask.http.client.native"
local reply = require "asynctask.http.client.reply"

local start = core.start

local M = {}

local CONNECT_TIMEOUT <const> = 30           -- seconds
local IDLE_TIMEOUT <const> = 60              -- seconds
local MAX_REDIRECTS <const> = 10
local MAX_TEXT <const> = 128 * 1024 * 1024   -- bytes of a body that is given whole
local PER_HOST <const>, TOTAL <const> = 100, 256 -- connections

-- ---- options -----------------------------------------------------------------------------------

local function is_table(v)
  return type(v) == "table", "table"
end

local function is_count(v)
  return math.type(v) == "integer" and v >= 0, "integer of at least 0"
end

-- A path or word for curl, which takes C strings.
local function is_text(v)
  return type(v) == "string" and not v:find("\0", 1, true), "string without zero bytes"
end

local function is_proxy(v)
  return v == false or type(v) == "string" and not v:find("[%c ]"), "URL or false"
end

local function is_auth(v)
  return type(v) == "table" and is_text(v[1] or v.user) and is_text(v[2] or v.password or ""),
    "table of user and password"
end

local function is_bearer(v)
  return type(v) == "string" and v:find("^[%w%-._~+/=]+$") ~= nil, "token"
end

local VERSIONS <const> = { ["1.0"] = true, ["1.1"] = true, ["2"] = true, ["2-direct"] = true }

local function is_version(v)
  return VERSIONS[v] == true, '"1.0", "1.1", "2" or "2-direct"'
end

local function anything()
  return true, "value"
end

local function is_time(v)
  return type(v) == "number" and v > 0, "seconds above 0"
end

local seconds, boolean, positive = check.seconds, check.boolean, check.positive

---What a request may be given, and a client for all of its requests.
---@class asynctask.http.RequestOptions
---@field headers? table<string, string|number|string[]> a header given as false is not sent, though the client has it
---@field query? table|string fields that are added to the URL: by name, or a list of pairs
---@field timeout? number seconds for the whole call: redirects, retries, the body of the response; none
---@field connect_timeout? number seconds until the connection stands: name, TCP, TLS (30)
---@field idle_timeout? number seconds in which not a byte moves (60); math.huge: none
---@field redirect? boolean false: a redirect is the response
---@field max_redirects? integer (10)
---@field retries? integer more attempts for requests that may be repeated (0)
---@field retry_delay? number seconds before the first retry, doubled for each further one (0.5)
---@field max_body? integer bytes of the response's body, after decompression
---@field max_headers? integer bytes of the response's headers (262144)
---@field decompress? boolean false: the body comes as it is sent
---@field auth? { [1]: string, [2]: string }|{ user: string, password: string } for Basic
---@field bearer? string a token for Bearer
---@field proxy? string|false URL of the proxy, or none; nil: what the environment says
---@field unix_socket? string path of the socket to connect to, whatever the URL's host
---@field ca? string file of the certificates to trust, PEM
---@field ca_path? string directory of such files
---@field cert? string file of a client certificate, PEM
---@field key? string file of its key
---@field key_password? string
---@field insecure_skip_verify? boolean true: takes any certificate of anybody
---@field http_version? "1.0"|"1.1"|"2"|"2-direct" at most ("2"); "2-direct": HTTP/2 without TLS
local defaults = {
  headers = is_table, timeout = is_time, connect_timeout = is_time, idle_timeout = is_time, redirect = boolean,
  max_redirects = is_count, retries = is_count, retry_delay = seconds, max_body = positive, max_headers = positive,
  decompress = boolean, auth = is_auth, bearer = is_bearer, proxy = is_proxy, unix_socket = is_text, ca = is_text,
  ca_path = is_text, cert = is_text, key = is_text, key_password = is_text, insecure_skip_verify = boolean,
  http_version = is_version,
}

local function extended(with)
  local known = {}
  for name, test in pairs(defaults) do
    known[name] = test
  end
  for name, test in pairs(with) do
    known[name] = test
  end
  return known
end

---@class asynctask.http.Options: asynctask.http.RequestOptions
---@field body? string|number|table|fun(): string? a string; a stream (anything with `read_some`); an iterator
---@field length? integer bytes of a streamed body; unknown: it is sent in chunks
---@field form? table fields, sent as application/x-www-form-urlencoded
---@field json? any a value, sent as application/json
---@field multipart? table parts, sent as multipart/form-data: by name, strings or { data= | file=, filename=, type= }
local of_request = extended {
  query = function(v) return type(v) == "table" or type(v) == "string", "table or string" end,
  body = anything, length = is_count, form = is_table, json = anything, multipart = is_table,
}

---@class asynctask.http.ClientOptions: asynctask.http.RequestOptions
---@field base? string a URL that those of requests are relative to
---@field cookies? boolean false: none are kept (true)
---@field max_per_host? integer connections to one host (100); further requests wait
---@field max_connections? integer in all (256)
local of_client = extended {
  base = is_text, cookies = boolean, max_per_host = positive, max_connections = positive,
}

-- ---- requests ----------------------------------------------------------------------------------

local function bad_header(name, key, value)
  if not escape.is_token(key) then
    check.bad(2, name, ("header '%s': no token"):format(tostring(key)))
  end
  local lower = key:lower()
  if lower == "content-length" or lower == "transfer-encoding" then
    check.bad(2, name, ("header '%s' is the library's: it follows from the body"):format(key))
  end
  if type(value) ~= "string" and type(value) ~= "number" then
    check.bad(2, name, ("header '%s': string expected, got %s"):format(key, check.type_name(value)))
  end
  if not escape.is_value(tostring(value)) then
    check.bad(2, name, ("header '%s': its value has a line end or a zero byte"):format(key))
  end
end

-- Adds headers to a list of pairs; those of the same name that were there go.
local function add_headers(list, from, name)
  local given = {}
  for key in pairs(from) do
    given[tostring(key):lower()] = true
  end
  local kept = {}
  for _, pair in ipairs(list) do
    if not given[pair[1]:lower()] then
      kept[#kept + 1] = pair
    end
  end
  local function add(key, value)
    if type(value) == "table" then
      for _, one in ipairs(value) do
        add(key, one)
      end
    elseif value ~= false then
      bad_header(name, key, value)
      kept[#kept + 1] = { key, tostring(value):match("^[ \t]*(.-)[ \t]*$") }
    end
  end
  for key, value in pairs(from) do
    add(key, value)
  end
  return kept
end

local function has(list, lower)
  for _, pair in ipairs(list) do
    if pair[1]:lower() == lower then
      return true
    end
  end
  return false
end

local function read_url(client, text, name, arg)
  check.expect(type(text) == "string", arg, name, "string", text)
  if text:find("[%c]") then
    check.bad(arg, name, "the URL has a control character")
  end
  if not client.base and not text:find("^%a[%w+.-]*:") then
    check.bad(arg, name, ("'%s' has no scheme: https://... expected"):format(text))
  end
  local at, words = native.url(text, client.base)
  if not at then
    check.bad(arg, name, ("'%s': %s"):format(text, words))
  end
  if at.scheme ~= "http" and at.scheme ~= "https" then
    check.bad(arg, name, ("scheme '%s': http or https expected"):format(at.scheme))
  end
  if at.user and at.user:find("\0", 1, true) or at.password and at.password:find("\0", 1, true) then
    check.bad(arg, name, "the URL's credentials have a zero byte")
  end
  return at
end

local function with_query(at, query, name)
  if type(query) == "table" then
    query = escape.fields(query)
  elseif query:find("%c") then
    check.bad(2, name, "option 'query' has a control character")
  end
  if query == "" then
    return at
  end
  -- As text: curl's parser escapes what cannot stand there.
  return native.url("?" .. (at.query and at.query .. "&" or "") .. query, at.url)
end

-- Everything that can be wrong with the arguments raises here, at the call.
local function prepare(client, method, url, opts, name)
  local at = read_url(client, url, name, 1)
  local o = check.options(opts, 2, name, of_request)
  local user, password = at.user, at.password or ""
  local list = o.headers and add_headers(client.headers, o.headers, name) or client.headers
  local body = bodies.of(o, name)
  if o.query then
    at = with_query(at, o.query, name)
    if not at or at.url:find("[%c]") then
      check.bad(2, name, "option 'query' makes no URL")
    end
  end
  local all = setmetatable({}, client.defaults_meta)
  for key, value in next, o do
    all[key] = value
  end
  local auth = all.auth
  if not user and auth then
    user, password = auth[1] or auth.user, auth[2] or auth.password or ""
  end
  local secret = not user and all.bearer
  if secret and not has(list, "authorization") then
    list = add_headers(list, { Authorization = "Bearer " .. secret }, name)
  end
  return {
    method = method, at = at, headers = list, has_type = has(list, "content-type"), body = body, o = all,
    user = user, password = user and password, cert = all.cert, key = all.key,
    deadline = all.timeout and all.timeout < math.huge and core.now() + all.timeout or nil,
  }
end

-- ---- clients -----------------------------------------------------------------------------------

---A client: connections, cookies and defaults of its own. Its methods are those of `asynctask.http`.
---@class asynctask.http.Client
local Client = {}

local meta = { __name = "asynctask.http.Client", __index = Client }

local function opened(self, name)
  if not self.native then
    check.raise(("'%s': the client is closed"):format(name))
  end
  return self
end

local function run(client, req)
  return reply.new(exchange.run(client, req))
end

local function call(self, method, url, opts, name)
  return start(run, self, prepare(opened(self, name), method, url, opts, name)):named "an HTTP request"
end

---Requests a URL; a Task of the response as soon as its head has come. Any status is a response.
---@param url string
---@param opts? asynctask.http.Options
---@return asynctask.Task<asynctask.http.Reply>
function Client:get(url, opts)
  return call(self, "GET", url, opts, "get")
end

---@param url string
---@param opts? asynctask.http.Options
---@return asynctask.Task<asynctask.http.Reply>
function Client:head(url, opts)
  return call(self, "HEAD", url, opts, "head")
end

---@param url string
---@param opts? asynctask.http.Options
---@return asynctask.Task<asynctask.http.Reply>
function Client:post(url, opts)
  return call(self, "POST", url, opts, "post")
end

---@param url string
---@param opts? asynctask.http.Options
---@return asynctask.Task<asynctask.http.Reply>
function Client:put(url, opts)
  return call(self, "PUT", url, opts, "put")
end

---@param url string
---@param opts? asynctask.http.Options
---@return asynctask.Task<asynctask.http.Reply>
function Client:patch(url, opts)
  return call(self, "PATCH", url, opts, "patch")
end

---@param url string
---@param opts? asynctask.http.Options
---@return asynctask.Task<asynctask.http.Reply>
function Client:delete(url, opts)
  return call(self, "DELETE", url, opts, "delete")
end

---Any method: `request{ method = "PROPFIND", url = url, ... }`.
---@param opts asynctask.http.Options and `method` ("GET") and `url`
---@return asynctask.Task<asynctask.http.Reply>
function Client:request(opts)
  check.expect(type(opts) == "table", 1, "request", "table", opts)
  local o = {}
  for k, v in pairs(opts) do
    o[k] = v
  end
  local method, url = o.method or "GET", o.url
  o.method, o.url = nil, nil
  if not escape.is_token(method) then
    check.bad(1, "request", "field 'method': a token expected, got " .. ("%q"):format(tostring(method)))
  end
  if method == "CONNECT" then
    check.bad(1, "request", "field 'method': CONNECT makes a tunnel, which is no request")
  end
  check.expect(type(url) == "string", 1, "request", "string in field 'url'", url)
  return call(self, method, url, o, "request")
end

local function http_failure(answer)
  local body = answer.body
  answer.body = nil
  return core.error {
    code = "EHTTP", op = answer.method, address = answer.url, url = answer.url, status = answer.status,
    message = ("the server answered with status %d"):format(answer.status), body = body, response = reply.new(answer),
  }
end

-- A call whose body is kept whole: it comes with the head.
local function whole(client, req)
  req.whole, req.whole_limit = true, MAX_TEXT
  local answer = exchange.run(client, req)
  if answer.status >= 400 then
    error(http_failure(answer), 0)
  end
  return answer
end

local function text_of(client, req)
  return whole(client, req).body
end

---The body of what a GET of the URL gives, as a string. A status of 400 or more is a fault (EHTTP) whose error has
---`status`, `body` and `response`. (.NET: HttpClient.GetStringAsync, which throws then, too.)
---@param url string
---@param opts? asynctask.http.Options `max_body`: 128 MiB
---@return asynctask.Task<string>
function Client:get_string(url, opts)
  return start(text_of, self, prepare(opened(self, "get_string"), "GET", url, opts, "get_string")):named
    "an HTTP request"
end

---The same for JSON, read by lua-cjson or dkjson. What is no JSON is a fault (EJSON).
---@param url string
---@param opts? asynctask.http.Options
---@return asynctask.Task<any>
function Client:get_json(url, opts)
  local library = json.library()
  local req = prepare(opened(self, "get_json"), "GET", url, opts, "get_json")
  if not has(req.headers, "accept") then
    req.headers = add_headers(req.headers, { Accept = "application/json" }, "get_json")
  end
  return start(function()
    local answer = whole(self, req)
    local decoded, value = pcall(library.decode, answer.body)
    if not decoded then
      error(core.error {
        code = "EJSON", op = "GET", address = answer.url, url = answer.url, message = tostring(value),
      }, 0)
    end
    return value
  end):named "an HTTP request"
end

---Fetches a URL into a file, which is there when all of it is: it is written beside it and renamed.
---@param url string
---@param path string
---@param opts? asynctask.http.DownloadOptions
---@return asynctask.Task<integer> bytes of the file
function Client:download(url, path, opts)
  return require("asynctask.http.client.download").start(opened(self, "download"), url, path, opts)
end

---A cookie, as the client keeps it.
---@class asynctask.http.Cookie
---@field name string
---@field value string
---@field domain string
---@field subdomains boolean whether hosts below the domain get it
---@field path string
---@field secure boolean for https only
---@field http_only boolean
---@field expires? integer seconds since the epoch; nil: with the client

---The cookies that the client keeps.
---@return asynctask.http.Cookie[]
function Client:cookies()
  local list = {}
  for _, line in ipairs(opened(self, "cookies").native:cookies()) do
    local prefix, domain, below, path, secure, expires, name, value =
      line:match("^(#?H?t?t?p?O?n?l?y?_?)([^\t]*)\t(%u+)\t([^\t]*)\t(%u+)\t(%d+)\t([^\t]*)\t?(.*)$")
    if domain then
      list[#list + 1] = {
        name = name, value = value, domain = domain, subdomains = below == "TRUE", path = path,
        secure = secure == "TRUE", http_only = prefix == "#HttpOnly_",
        expires = expires ~= "0" and math.tointeger(tonumber(expires)) or nil,
      }
    end
  end
  return list
end

---Forgets all cookies.
function Client:clear_cookies()
  opened(self, "clear_cookies").native:cookies("ALL")
end

---Ends what is under way (ECANCELED) and the connections. Closing twice is fine.
---@return asynctask.Task
function Client:close()
  local engine = self.native
  self.native = nil
  if engine then
    engine:close()
  end
  return core.from_result()
end

meta.__close = Client.close

local AGENT <const> = "asynctask/0.2.0"

local function new(o)
  local given = {}
  for key in pairs(defaults) do
    given[key] = o[key]
  end
  given.headers = nil
  given.connect_timeout = given.connect_timeout or CONNECT_TIMEOUT
  given.idle_timeout = given.idle_timeout or IDLE_TIMEOUT
  given.max_redirects = given.max_redirects or MAX_REDIRECTS
  local client = setmetatable({
    native = native.client {
      cookies = o.cookies, max_per_host = o.max_per_host or PER_HOST, max_connections = o.max_connections or TOTAL,
    },
    names = names.new(), defaults_meta = { __index = given }, headers = { { "User-Agent", AGENT } },
  }, meta)
  if o.base then
    client.base = read_url(client, o.base, "client", 1).url
  end
  if o.headers then
    client.headers = add_headers(client.headers, o.headers, "client")
  end
  return client
end

---A client of one's own.
---@param opts? asynctask.http.ClientOptions
---@return asynctask.http.Client
function M.client(opts)
  local o = check.options(opts, 1, "client", of_client)
  local copy = {}
  for key, value in pairs(o) do
    copy[key] = value
  end
  if copy.cookies == nil then
    copy.cookies = true
  end
  return new(copy)
end

-- ---- the state's own client --------------------------------------------------------------------

local own

-- It keeps no cookies: unrelated parts of a program share it.
local function shared()
  own = own or new { cookies = false }
  return own
end

---Closes the connections of the state's own client, which is made anew when it is needed.
---@return asynctask.Task
function M.close()
  local client = own
  own = nil
  return client and client:close() or core.from_result()
end

for _, name in ipairs {
  "get", "head", "post", "put", "patch", "delete", "request", "get_string", "get_json", "download",
} do
  local method = Client[name]
  M[name] = function(...)
    return method(shared(), ...)
  end
end

-- For download.lua.
M.prepare, M.run, M.http_failure = prepare, run, http_failure

return M
