-- The rock. LuaRocks compiles the module by itself, without the Makefile; spec/host/rockspec_spec.lua compares
-- the lists below with the files in csrc/ and lua/.
rockspec_format = "3.0"
package = "asynctask"
version = "scm-1"

source = {
  url = "git+https://github.com/asynctask/asynctask.git",
}

description = {
  summary = "Tasks for Lua 5.4: await files, sockets, timers and parallel jobs",
  detailed = [[
asynctask gives Lua 5.4 what .NET calls Task: work that goes on in the background, that any code can
hold, combine, cancel and await. Operations on files, sockets and timers return Tasks and cost no
thread; task.run copies a function to a pool thread and brings its results back. One C module on
libuv, a thin Lua face, usable from any host that already runs Lua.]],
  license = "MIT",
  homepage = "https://github.com/asynctask/asynctask",
  issues_url = "https://github.com/asynctask/asynctask/issues",
  maintainer = "asynctask contributors",
  labels = { "async", "concurrency", "coroutines", "libuv", "network", "threads" },
}

supported_platforms = { "unix" }

dependencies = {
  "lua ~> 5.4",
}

external_dependencies = {
  UV = { header = "uv.h", library = "uv" },
}

build = {
  type = "builtin",
  modules = {
    ["asynctask.core"] = {
      sources = {
        "csrc/base/arg.c",
        "csrc/base/block.c",
        "csrc/base/buffer.c",
        "csrc/base/error.c",
        "csrc/base/format.c",
        "csrc/core/await.c",
        "csrc/core/blocking.c",
        "csrc/core/cancel.c",
        "csrc/core/cancellation.c",
        "csrc/core/channel.c",
        "csrc/core/combine.c",
        "csrc/core/copool.c",
        "csrc/core/coroutine.c",
        "csrc/core/dump.c",
        "csrc/core/fault.c",
        "csrc/core/group.c",
        "csrc/core/locals.c",
        "csrc/core/methods.c",
        "csrc/core/op.c",
        "csrc/core/post.c",
        "csrc/core/relay.c",
        "csrc/core/runtime.c",
        "csrc/core/sched.c",
        "csrc/core/source.c",
        "csrc/core/task.c",
        "csrc/core/timer.c",
        "csrc/core/waitqueue.c",
        "csrc/host/module.c",
        "csrc/io/address.c",
        "csrc/io/deposit.c",
        "csrc/io/dns.c",
        "csrc/io/ending.c",
        "csrc/io/file.c",
        "csrc/io/filelines.c",
        "csrc/io/fileops.c",
        "csrc/io/filesome.c",
        "csrc/io/filework.c",
        "csrc/io/fs.c",
        "csrc/io/fscached.c",
        "csrc/io/fscopy.c",
        "csrc/io/fsdir.c",
        "csrc/io/fsglob.c",
        "csrc/io/fsremove.c",
        "csrc/io/fsverb.c",
        "csrc/io/fswalk.c",
        "csrc/io/fswhole.c",
        "csrc/io/handle.c",
        "csrc/io/listen.c",
        "csrc/io/process.c",
        "csrc/io/reader.c",
        "csrc/io/server.c",
        "csrc/io/signal.c",
        "csrc/io/spawn.c",
        "csrc/io/stream.c",
        "csrc/io/tcp.c",
        "csrc/io/tty.c",
        "csrc/io/ttymode.c",
        "csrc/io/udp.c",
        "csrc/io/udpoption.c",
        "csrc/io/udpqueue.c",
        "csrc/io/watch.c",
        "csrc/io/watchscan.c",
        "csrc/io/watchtree.c",
        "csrc/io/watchuv.c",
        "csrc/io/writer.c",
        "csrc/par/array.c",
        "csrc/par/carry.c",
        "csrc/par/codec.c",
        "csrc/par/decode.c",
        "csrc/par/encode.c",
        "csrc/par/interrupt.c",
        "csrc/par/job.c",
        "csrc/par/numbers.c",
        "csrc/par/parcel.c",
        "csrc/par/pool.c",
        "csrc/par/pools.c",
        "csrc/par/refuse.c",
        "csrc/par/submit.c",
        "csrc/par/sharedcancel.c",
        "csrc/par/sharedchannel.c",
        "csrc/par/sharedqueue.c",
        "csrc/par/worker.c",
      },
      defines = { "_GNU_SOURCE=" },
      incdirs = { "csrc", "csrc/include", "$(UV_INCDIR)" },
      libdirs = { "$(UV_LIBDIR)" },
      libraries = { "uv", "pthread", "dl" },
    },
    ["asynctask.array"] = "lua/asynctask/array.lua",
    ["asynctask.channel"] = "lua/asynctask/channel.lua",
    ["asynctask.chunks"] = "lua/asynctask/chunks.lua",
    ["asynctask.coroutine"] = "lua/asynctask/coroutine.lua",
    ["asynctask.fs"] = "lua/asynctask/fs.lua",
    ["asynctask.group"] = "lua/asynctask/group.lua",
    asynctask = "lua/asynctask/init.lua",
    ["asynctask.iterator"] = "lua/asynctask/iterator.lua",
    ["asynctask.main"] = "lua/asynctask/main.lua",
    ["asynctask.meta"] = "lua/asynctask/meta.lua",
    ["asynctask.net"] = "lua/asynctask/net.lua",
    ["asynctask.net.check"] = "lua/asynctask/net/check.lua",
    ["asynctask.net.race"] = "lua/asynctask/net/race.lua",
    ["asynctask.net.server"] = "lua/asynctask/net/server.lua",
    ["asynctask.net.stream"] = "lua/asynctask/net/stream.lua",
    ["asynctask.net.threads"] = "lua/asynctask/net/threads.lua",
    ["asynctask.net.udp"] = "lua/asynctask/net/udp.lua",
    ["asynctask.parallel"] = "lua/asynctask/parallel.lua",
    ["asynctask.process"] = "lua/asynctask/process.lua",
    ["asynctask.signal"] = "lua/asynctask/signal.lua",
    ["asynctask.sync"] = "lua/asynctask/sync.lua",
    ["asynctask.testing"] = "lua/asynctask/testing.lua",
    ["asynctask.tty"] = "lua/asynctask/tty.lua",
    ["asynctask.walk"] = "lua/asynctask/walk.lua",
    ["asynctask.watch"] = "lua/asynctask/watch.lua",
  },
  copy_directories = { "docs" },
}

test = {
  type = "command",
  command = "make test",
}
