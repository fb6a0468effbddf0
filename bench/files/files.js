// files.js - the same jobs in node, for bench/files.lua. Prints the seconds that each took, and what it saw.
const fs = require('fs')
const readline = require('readline')

const [what, path, last] = process.argv.slice(2)
const count = Number(last)
const began = process.hrtime.bigint()

function done(seen) {
  console.log(Number(process.hrtime.bigint() - began) / 1e9, seen)
}

function small() {
  let next = 0, bytes = 0, running = 0
  function start() {
    if (next === count) return running === 0 && done(bytes)
    const i = next++
    running++
    fs.readFile(`${path}/${i % 100}/${i}`, (err, data) => {
      if (err) throw err
      bytes += data.length
      running--
      start()
    })
  }
  for (let i = 0; i < 64; i++) start()
}

function pieces() {
  const fd = fs.openSync(path), data = Buffer.alloc(65536)
  let bytes = 0
  function read() {
    fs.read(fd, data, 0, 65536, null, (err, n) => {
      if (err) throw err
      if (n === 0) return done(bytes)
      bytes += n
      read()
    })
  }
  read()
}

function lines() {
  let seen = 0
  readline.createInterface({ input: fs.createReadStream(path) })
    .on('line', (line) => { seen += line.length + 1 })
    .on('close', () => done(seen))
}

function copy() {
  fs.copyFile(path, last, (err) => {
    if (err) throw err
    done(fs.statSync(last).size)
  })
}

function walk() {
  let seen = 0, running = 0
  function visit(dir) {
    running++
    fs.readdir(dir, { withFileTypes: true }, (err, entries) => {
      if (err) throw err
      seen += entries.length
      for (const e of entries) if (e.isDirectory()) visit(`${dir}/${e.name}`)
      if (--running === 0) done(seen)
    })
  }
  visit(path)
}

const jobs = { small, pieces, lines, copy, walk }
jobs[what]()
