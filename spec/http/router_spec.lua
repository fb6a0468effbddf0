-- http.router: which handler answers, with which parameters; 404, 405, OPTIONS, HEAD; functions around handlers;
-- mounting.

local router = require("asynctask.http.router").router

-- A request as far as a router looks at it, and its answer.
local function ask(r, method, path)
  local req = { method = method, path = path }
  local status, headers, body = r(req)
  return status, body, headers, req
end

-- A handler that tells what it got.
local function teller(name)
  return function(req)
    local list = {}
    for key, value in pairs(req.params) do
      list[#list + 1] = key .. "=" .. value
    end
    table.sort(list)
    return 200, nil, name .. "(" .. table.concat(list, " ") .. ")"
  end
end

local function body(r, method, path)
  return (select(2, ask(r, method, path)))
end

describe("http.router", function()
  it("chooses by method and path", function()
    local r = router():get("/", teller "root"):get("/users", teller "list"):post("/users", teller "add")
      :put("/users", teller "put"):patch("/users", teller "patch"):delete("/users", teller "delete")
      :on("PURGE", "/users", teller "purge")
    assert.are.equal("root()", body(r, "GET", "/"))
    assert.are.equal("list()", body(r, "GET", "/users"))
    assert.are.equal("add()", body(r, "POST", "/users"))
    assert.are.equal("put()", body(r, "PUT", "/users"))
    assert.are.equal("patch()", body(r, "PATCH", "/users"))
    assert.are.equal("delete()", body(r, "DELETE", "/users"))
    assert.are.equal("purge()", body(r, "PURGE", "/users"))
    assert.are.equal(404, (ask(r, "GET", "/users/")))
    assert.are.equal(404, (ask(r, "GET", "/user")))
    assert.are.equal(404, (ask(r, "GET", "users")))
  end)

  it("gives the parts of a path as parameters", function()
    local r = router():get("/users/:id", teller "user"):get("/users/:id/posts/:post", teller "post")
      :get("/files/*rest", teller "file"):post("/users/:name", teller "named")
    assert.are.equal("user(id=7)", body(r, "GET", "/users/7"))
    assert.are.equal("named(name=7)", body(r, "POST", "/users/7"))
    assert.are.equal("post(id=a post=b c)", body(r, "GET", "/users/a/posts/b c"))
    assert.are.equal("file(rest=a/b//c)", body(r, "GET", "/files/a/b//c"))
    assert.are.equal("file(rest=)", body(r, "GET", "/files/"))
    assert.are.equal(404, (ask(r, "GET", "/files")))
    assert.are.equal(404, (ask(r, "GET", "/users/")))
    assert.are.equal(404, (ask(r, "GET", "/users//posts/1")))
  end)

  it("prefers text to one part, and that to the rest, in whatever order they were added", function()
    local r = router():get("/*rest", teller "rest"):get("/:a/x", teller "a"):get("/b/:c", teller "c")
      :get("/b/y", teller "y")
    assert.are.equal("y()", body(r, "GET", "/b/y"))
    assert.are.equal("c(c=x)", body(r, "GET", "/b/x"))
    assert.are.equal("a(a=z)", body(r, "GET", "/z/x"))
    assert.are.equal("rest(rest=z/y)", body(r, "GET", "/z/y"))
    assert.are.equal("rest(rest=b/y/z)", body(r, "GET", "/b/y/z"))
  end)

  it("says which methods there are (405, OPTIONS)", function()
    local r = router():get("/x", teller "get"):post("/x", teller "post"):on("PUT", "/y", teller "put")
    local status, _, headers = ask(r, "DELETE", "/x")
    assert.are.equal(405, status)
    assert.are.equal("GET, HEAD, OPTIONS, POST", headers.allow)
    status, _, headers = ask(r, "OPTIONS", "/x")
    assert.are.equal(204, status)
    assert.are.equal("GET, HEAD, OPTIONS, POST", headers.allow)
    assert.are.equal("OPTIONS, PUT", select(3, ask(r, "GET", "/y")).allow)
    assert.are.equal(404, (ask(r, "OPTIONS", "/z")))
    assert.are.equal(204, (ask(r, "OPTIONS", "*")))
  end)

  it("answers HEAD by the handler for GET, or its own", function()
    local r = router():get("/:x", teller "get")
    assert.are.equal("get(x=1)", body(r, "HEAD", "/1"))
    r:on("HEAD", "/:y", teller "head")
    assert.are.equal("head(y=1)", body(r, "HEAD", "/1"))
    assert.are.equal(405, (ask(router():post("/x", teller "x"), "HEAD", "/x")))
  end)

  it("calls functions around handlers, the first one outermost, around 404 too", function()
    local log = {}
    local function around(name)
      return function(req, next)
        log[#log + 1] = name .. " " .. req.path
        local status, headers, text = next()
        log[#log + 1] = name .. " " .. status
        return status, headers, text and name .. text
      end
    end
    local r = router():use(around "a"):get("/x", function() return 200, nil, "x" end):use(around "b")
    assert.are.equal("abx", body(r, "GET", "/x"))
    assert.are.equal("a /x,b /x,b 200,a 200", table.concat(log, ","))
    assert.are.equal(404, (ask(r, "GET", "/y")))
  end)

  it("lets a function answer itself, or change the request", function()
    local r = router():use(function(req, next)
      if req.path == "/secret" then
        return 401
      end
      return next({ method = "GET", path = "/other" })
    end):get("/other", teller "other"):get("/secret", teller "secret")
    assert.are.equal(401, (ask(r, "GET", "/secret")))
    assert.are.equal("other()", body(r, "POST", "/x"))
  end)

  it("mounts handlers, which see the rest of the path", function()
    local function show(req)
      return 200, nil, req.path
    end
    local r = router():mount("/static", show):mount("/u/:id/files", show):get("/static/own", teller "own")
    assert.are.equal("/a/b", body(r, "GET", "/static/a/b"))
    assert.are.equal("/", body(r, "GET", "/static/"))
    assert.are.equal("/", body(r, "GET", "/static"))
    assert.are.equal("own()", body(r, "GET", "/static/own"))
    assert.are.equal(404, (ask(r, "GET", "/statics")))
    local _, text, _, req = ask(r, "POST", "/u/7/files/x")
    assert.are.equal("/x", text)
    assert.are.equal("7", req.params.id)
    assert.are.equal("/u/7/files/x", req.path)
    assert.are.equal("/", body(r, "GET", "/u/7/files"))
    assert.are.equal("/a", body(router():mount("/", show), "GET", "/a"))
    assert.are.equal("/", body(router():mount("/", show), "GET", "/"))
  end)

  it("groups routes below a path, with functions of their own", function()
    local r = router():get("/", teller "root")
    local group = r:group("/api/:version", function(api)
      api:use(function(_, next)
        local status, headers, text = next()
        return status, headers, "api:" .. (text or "")
      end)
      api:get("/users/:id", teller "user")
    end)
    group:get("/late", teller "late")
    assert.are.equal("api:user(id=7 version=1)", body(r, "GET", "/api/1/users/7"))
    assert.are.equal("api:late(version=2)", body(r, "GET", "/api/2/late"))
    assert.are.equal("root()", body(r, "GET", "/"))
    assert.are.equal(404, (ask(r, "GET", "/api/1/none")))
  end)

  it("asks `not_found` where nothing fits", function()
    local r = router { not_found = function(req) return 410, nil, req.path end }
    assert.are.equal(410, (ask(r, "GET", "/x")))
  end)

  it("S19: is copied to jobs, with its routes", function()
    local await = require("asynctask").await
    local run = require("asynctask").run
    local r = router():get("/users/:id", function(req) return 200, nil, "user " .. req.params.id end)
    r:group("/api"):get("/x", function() return 201 end)
    local status, _, text = await(run(function(copy)
      return copy { method = "GET", path = "/users/7" }
    end, r))
    assert.are.equal(200, status)
    assert.are.equal("user 7", text)
    assert.are.equal(201, (await(run(function(copy)
      return copy:get("/new", function() end) { method = "GET", path = "/api/x" }
    end, r))))
  end)

  it("S22: checks its arguments", function()
    local r = router():get("/x", teller "x")
    local function fails(message, f, ...)
      local ok, err = pcall(f, ...)
      assert.is_false(ok)
      assert.are.equal(message, err:gsub("^.-:%d+: ", ""), nil)
    end
    fails("bad argument #1 to 'on' (method expected, got nil)", r.on, r)
    fails("bad argument #2 to 'on' (path that begins with a slash expected, got 'x')", r.on, r, "GET", "x", print)
    fails("bad argument #2 to 'on' (path that begins with a slash expected, got nil)", r.on, r, "GET", nil, print)
    fails("bad argument #3 to 'on' (function expected, got nil)", r.on, r, "GET", "/y")
    fails("bad argument #2 to 'on' (':' is not :name, or *name at the end)", r.on, r, "GET", "/:", print)
    fails("bad argument #2 to 'on' ('*a' is not :name, or *name at the end)", r.on, r, "GET", "/*a/b", print)
    fails("bad argument #2 to 'on' (there is a route for GET /x already)", r.on, r, "GET", "/x", print)
    fails("bad argument #1 to 'get' (path that begins with a slash expected, got 'x')", r.get, r, "x", print)
    fails("bad argument #2 to 'post' (function expected, got table)", r.post, r, "/y", {})
    fails("bad argument #1 to 'get' (there is a route for GET /x already)", r.get, r, "/x", print)
    fails("bad argument #1 to 'use' (function expected, got number)", r.use, r, 1)
    fails("bad argument #1 to 'mount' (there is a route for '/x' already, or it ends in *name)", r.mount, r, "/x",
      print)
    fails("bad argument #1 to 'router' (unknown option 'x')", router, { x = 1 })
  end)
end)
