-- Grants requests of one pool to one of the processes that share its limit, after taking in what
-- that process reports. The counterpart of ledger.py for many processes: the rules are the same.
-- KEYS[1]: the pool's hash: what is known of the window, and a record "p:<id>" of each process.
-- ARGV[1]: JSON, put together in redis_words.py, which also reads what is returned.
-- Times are seconds on this Redis's clock, but for `reset`, which is on Braze's clock, and for
-- `call.low` and `call.high`: Braze's clock showed at least and at most so much when the call was
-- sent. Since the call comes later, what is derived from `low` errs on the late side, as it must.

local PAUSE = 1         -- seconds, after a refusal that says nothing of its window; doubles
local PATIENCE = 2      -- seconds without an answer until one more request may ask
local GREEDIEST = 4     -- requests of others for one of ours that are reckoned with at most
local SOONEST, LATEST = 0.05, 2  -- seconds that a turn may come later than Braze's clock says
local DEAD = 90         -- seconds after which a process that says nothing is forgotten
local EXPIRES = 10800   -- seconds: two hours, and the longest window
local HELD = 16         -- requests that may be kept for looking at Braze's clock
local SHARP = 0.1       -- seconds: a turn known as exactly as this needs no looks
local SPARE = 0.25      -- seconds before the turn, from when on nothing is kept
local AMPLE = 64        -- requests for each process, beyond which it may keep a few in stock
local JITTER = 0.1      -- seconds that a request may be quicker on its way than the one before
local QUICK, SLOW = 0.005, 0.1   -- seconds until a process asks again whether another got to know
local RETURNS = 0.25    -- seconds until it asks again while others may give something back

local OF_WINDOW = {
  "reset", "turn", "soon", "remaining", "known", "first", "by_then", "asked_at", "look",
}
local OF_POOL = {
  "limit", "number", "opening", "whole", "spent", "refused", "late", "pace", "pause", "closed_at",
  "closed_until", "blind", "slot",
}
local OF_PROCESS = { "seen", "calls", "batch", "flying", "asking", "number", "want" }

local call = cjson.decode(ARGV[1])
local clock = redis.call("TIME")
local now = tonumber(string.format("%d.%06d", clock[1], clock[2]))

local function text(number)
  return number and string.format(number == math.floor(number) and "%d" or "%.6f", number) or ""
end

-- What is there -----------------------------------------------------------------------------------
local pool, people, forgotten = {}, {}, {}
local stored = redis.call("HGETALL", KEYS[1])
for i = 1, #stored, 2 do
  local id = string.match(stored[i], "^p:(.*)$")
  if id then
    local person, place = {}, 0
    for word in string.gmatch(stored[i + 1], "%S+") do
      place = place + 1
      person[OF_PROCESS[place] or place] = tonumber(word)
    end
    people[id] = place >= #OF_PROCESS and person or nil
  else
    pool[stored[i]] = tonumber(stored[i + 1])
  end
end
pool.number = pool.number or math.floor(now)  -- so that no number comes twice, state lost or not
pool.opening, pool.whole = pool.opening or 1, pool.whole or 0
pool.late, pool.pace, pool.pause = pool.late or 0, pool.pace or 0, pool.pause or PAUSE
pool.spent, pool.refused, pool.blind = pool.spent or 0, pool.refused or 0, pool.blind or 0

local mine = people[call.id] or { calls = 0, batch = 0 }
if call.calls <= mine.calls then
  -- It was held up on its way, and the process has called again since.
  return { 0, 0, pool.number, 1, text(QUICK), text(now), pool.limit or call.limit, "", "" }
end
local fresh = call.batch > mine.batch  -- else its reports were taken in, and the reply was lost
mine = {}
for _, name in ipairs(OF_PROCESS) do mine[name] = call[name] end
mine.seen, people[call.id] = now, mine

local function limit() return pool.limit or call.limit end

local function share(requests) return math.max(1, math.floor((1 - call.reserve) * requests)) end

local function count(requests)  -- requests of which Braze said nothing
  pool.spent = pool.spent + requests
  if pool.remaining then pool.remaining = math.max(0, pool.remaining - requests) end
end

local flying, alive = 0, 0
for id, person in pairs(people) do
  if math.abs(now - person.seen) > DEAD then
    if person.number >= pool.number - 1 then count(person.flying) end
    forgotten[#forgotten + 1] = "p:" .. id
    people[id] = nil
  else
    flying, alive = flying + person.flying, alive + 1
  end
end

-- Windows -----------------------------------------------------------------------------------------
local function pace(in_flight)  -- how many requests others send for each of ours
  if not pool.remaining then return 0 end
  local ours = pool.spent - pool.by_then
  local others = pool.first - pool.remaining - ours - in_flight
  return others <= 0 and 0 or math.min(GREEDIEST, others / math.max(1, ours))
end

local function shared()  -- whether others use the window too, or nobody knows
  if not pool.remaining or pool.refused == 1 or pace(flying) > 0 then return true end
  return pool.whole == 1 and limit() - pool.remaining - pool.spent - flying > 0
end

local function begin(opening, whole)
  pool.pace = pace(flying)
  pool.number, pool.opening, pool.whole = pool.number + 1, opening, whole
  pool.spent, pool.refused = 0, 0
  for _, name in ipairs(OF_WINDOW) do pool[name] = nil end
end

local function turn()
  local late = pool.turn and now - pool.turn - pool.late or -1
  if late < 0 then return end
  local idle = late > PATIENCE and flying == 0
  begin((idle or shared()) and 1 or limit(), idle and 0 or 1)
end

local function bound()  -- when the window turns: surely from `turn` on, surely not before `soon`
  if not pool.reset or not call.low then return end
  -- No window is longer than an hour: clocks may be set.
  pool.turn = math.min(pool.turn or now + 3600, now + pool.reset - call.low)
  pool.soon = math.max(pool.soon or 0, now + pool.reset - call.high)
end

local function learn(remaining, reset)
  if not pool.remaining or remaining > pool.remaining then
    pool.first, pool.by_then = remaining, pool.spent
  end
  if reset ~= pool.reset then pool.turn, pool.soon = nil, nil end
  pool.remaining, pool.reset, pool.known = remaining, reset, now
  bound()
end

local function pause(granted)
  if granted < (pool.closed_at or 0) then return end  -- sent before an earlier pause
  pool.closed_at, pool.closed_until = now, now + pool.pause
  begin(1, 0)
  pool.blind, pool.pause = 0, math.min(2 * pool.pause, math.max(call.period, PAUSE))
end

-- Where Braze says nothing of its limit, requests are paced so that no window of the period,
-- wherever it begins, sees more than the limit: `tolerance` seconds may be made good.
local tolerance = call.period / 20
local interval = (call.period + JITTER + tolerance) / share(limit())

-- What the process reports ------------------------------------------------------------------------
local function told(answers)
  local reset, number, lowest, granted, says = unpack(answers)
  pool.blind, pool.pause = 0, PAUSE
  if not pool.remaining then
    if call.low and reset <= call.low or granted < (pool.known or 0) then return end  -- too old
  elseif reset > pool.reset and call.high and pool.reset <= call.high then
    begin(1, 1)  -- the window has turned sooner than was sure
  elseif granted < pool.known then
    -- They may have been counted before what is known was: the lower number is right.
    if reset < pool.reset then return end
    pool.spent, pool.remaining = pool.spent + number, math.min(pool.remaining, lowest)
    return
  end
  pool.limit = says > 0 and says or pool.limit
  pool.spent = pool.spent + number
  learn(lowest, reset)
end

local function silent(answers)
  local window, number = unpack(answers)
  if pool.remaining then
    count(number)
  elseif window == pool.number and pool.blind == 0 then
    pool.blind = 1
    local gone = math.min(call.period, interval * (flying + pool.spent + number))
    pool.slot = math.max(pool.slot or 0, now + gone)
  end
end

local function refused(answers)
  local reset, window, granted, says = unpack(answers)
  if reset == 0 then
    if not pool.remaining and pool.whole == 1 and window == pool.number then
      pool.late = math.min(LATEST, math.max(SOONEST, 2 * pool.late))  -- not turned yet
    end
    pause(granted)
  elseif window < pool.number and reset < (pool.reset or 0) then
    return  -- of an earlier window
  elseif not call.low or reset + pool.late > call.low then
    pool.limit = says > 0 and says or pool.limit
    learn(0, pool.remaining and math.max(reset, pool.reset) or reset)
    pool.refused = 1
  end
end

bound()
turn()
if fresh then
  for _, answers in ipairs(call.told) do told(answers) end
  for _, unknown in ipairs(call.counted) do
    -- What was sent just before the turn may have been counted after it.
    if unknown[1] >= pool.number - 1 then count(unknown[2]) end
  end
  for _, answers in ipairs(call.silent) do silent(answers) end
  for _, answers in ipairs(call.refused) do refused(answers) end
  turn()
end
if call.apart and pool.remaining ~= 0 then
  -- Others may have sent without Redis too, and still may: only an answer from now on tells.
  pool.remaining, pool.known, pool.opening, pool.whole = nil, now, 1, 0
end

-- What it gets ------------------------------------------------------------------------------------
if mine.number ~= pool.number then mine.number, mine.asking = pool.number, 0 end
local wanted, askers, asking = 0, 0, 0
for _, person in pairs(people) do
  if person.number == pool.number then asking = asking + person.asking end
  wanted, askers = wanted + person.want, askers + (person.want > 0 and 1 or 0)
end

local function left()
  local requests = pool.remaining
  if flying > 0 then
    requests = requests - math.ceil(flying * (1 + math.max(pool.pace, pace(flying / 2))))
  end
  return math.max(0, math.min(requests, share(limit()) - pool.spent - flying))
end

-- If the next window is needed anyway, it is to begin at the right moment: the last bulk requests
-- of this one are kept, and sent one by one, for their answers tell when a second of Braze's clock
-- turns. Whether it is needed shows when those under way are answered.
local function unless_held(room)
  local sharp = call.sharp or not pool.turn or pool.turn - pool.soon <= SHARP
  local time = sharp and 0 or pool.soon - SPARE - now
  if room >= wanted + flying or time <= 0 then return room end
  local held = math.min(room, HELD, math.floor(limit() / 4))
  if held < room or held == 0 then return room - held end
  local urgent = math.min(room, call.urgent)
  if wanted <= room or now < (pool.look or 0) then return urgent end
  pool.look = now + math.min(1, time) / HELD
  return math.max(1, urgent)
end

-- How many requests may go, and the seconds until more may.
local function open()
  local closed = pool.closed_until and now >= pool.closed_at  -- else the clock was set
  if closed and now < pool.closed_until then return 0, pool.closed_until - now end
  if pool.blind == 1 then
    pool.slot = math.min(math.max(pool.slot, now - tolerance), now + call.period + interval)
    local room = pool.slot > now and 0 or math.floor((now - pool.slot) / interval) + 1
    return room, pool.slot + room * interval - now
  end
  if not pool.remaining then
    local age = math.max(0, now - (pool.asked_at or now))
    local patience = asking > 0 and math.floor(age / PATIENCE) or 0
    local room = math.max(0, 1 + patience - asking, share(pool.opening) - pool.spent - flying)
    return room, math.max(QUICK, math.min(SLOW, age / 2))
  end
  local room = unless_held(left())
  local wait = pool.turn and pool.turn + pool.late - now or RETURNS
  local look = (pool.look or 0) > now and pool.look - now or SLOW
  if room < left() then wait = math.min(wait, look) end
  if flying > call.flying then wait = math.min(wait, RETURNS) end
  return room, wait
end

local room, wait = open()
-- No process takes more than its part at once, while others wait too.
local lot = math.max(math.ceil(room / math.max(1, askers)), call.urgent)
local granted = math.min(call.want, room, lot)
if granted < call.want and granted < room then wait = QUICK end
local ample = granted == call.want and pool.remaining and room - granted >= AMPLE * alive
local stock = ample and call.stock or 0
if granted > 0 then
  if pool.blind == 1 then
    pool.slot = pool.slot + granted * interval
    wait = pool.slot - now
  elseif not pool.remaining then
    pool.asked_at = asking > 0 and pool.asked_at or now
    mine.asking = mine.asking + granted
  end
end
mine.flying, mine.want = mine.flying + granted + stock, call.want - granted
flying = flying + granted + stock

-- Kept --------------------------------------------------------------------------------------------
local fields = {}
local function keep(name, value) fields[#fields + 1], fields[#fields + 2] = name, value end
for _, name in ipairs(OF_WINDOW) do keep(name, text(pool[name])) end
for _, name in ipairs(OF_POOL) do keep(name, text(pool[name])) end
local own, words = "p:" .. call.id, {}
for place, name in ipairs(OF_PROCESS) do words[place] = text(mine[name]) end
if call.leave then forgotten[#forgotten + 1] = own else keep(own, table.concat(words, " ")) end
redis.call("HSET", KEYS[1], unpack(fields))
if #forgotten > 0 then redis.call("HDEL", KEYS[1], unpack(forgotten)) end
redis.call("EXPIRE", KEYS[1], EXPIRES)

local asks = not pool.remaining and pool.blind == 0
return {
  granted, stock, pool.number, asks and 1 or 0, text(math.max(0, wait)), text(now), limit(),
  pool.remaining and left() or "",
  pool.turn and text(math.max(0, pool.turn + pool.late - now)) or "",
}
