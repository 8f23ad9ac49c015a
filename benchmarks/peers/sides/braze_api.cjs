// braze-api 2.13.4 on Node.js: users.export.ids, so many calls at once as the others make.
//
// It neither tries again nor waits, and takes no timeout. Its error holds the status but not the
// headers, so that a caller cannot know when to come again. What course.py does for the others
// is done here once more.

const fs = require('fs')
const { Braze } = require('braze-api')

const BATCH = 50
const AT_ONCE = 32

const task = JSON.parse(process.argv[2])
const ids = fs.readFileSync(task.ids, 'utf8').split('\n').filter(Boolean)
const answered = new Set()
const unknown = new Set()
const raised = {}
let began, used

function say(word) {
  fs.writeSync(1, JSON.stringify(word) + '\n')
}

function told() {
  const cpu = process.cpuUsage(used)
  return {
    seconds: (performance.now() - began) / 1000,
    cpu: (cpu.user + cpu.system) / 1e6,
    peak_mb: Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'latin1'))[1]) / 1024,
    answered: answered.size,
    unknown: unknown.size,
    raised,
  }
}

function failed(batch, error) {
  const name = error.constructor.name + (error.status ? ` ${error.status}` : '')
  raised[name] = (raised[name] || 0) + batch.length
}

async function work() {
  const braze = new Braze(task.url, process.env.BENCH_KEY)
  let next = 0
  async function worker() {
    while (next < ids.length) {
      const batch = ids.slice(next, (next += BATCH))
      try {
        const answer = await braze.users.export.ids({ external_ids: batch })
        for (const user of answer.users) answered.add(user.external_id)
        for (const name of answer.invalid_user_ids || []) unknown.add(name)
      } catch (error) {
        failed(batch, error)
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

function end() {
  say(told())
  process.exit(0)
}

process.on('SIGTERM', end)
process.stdin.once('data', () => {
  began = performance.now()
  used = process.cpuUsage()
  work().then(end)
})
say({ ready: true })
