-- Grants requests to the process that calls. Goes on from redis_window.lua, in the same chunk.

local EXPIRES = 10800   -- seconds: two hours, and the longest window
local HELD = 8          -- requests that may be kept for looking at Braze's clock
local SHARP = 0.1       -- seconds: a turn known as exactly as this needs no looks
local SPARE = 0.25      -- seconds before the turn, from when on nothing is kept
local AMPLE = 64        -- requests for each process, beyond which it may keep a few in stock
local QUICK, SLOW = 0.005, 0.1   -- seconds until a process asks again whether another got to know
local RETURNS = 0.25    -- seconds until it asks again while others may give something back

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
-- Returns how many may go, and when to look again.
local function unless_held(room)
  local sharp = call.sharp or not pool.turn or pool.turn - pool.soon <= SHARP
  local time = sharp and 0 or pool.soon - SPARE - now
  if room >= wanted + flying or time <= 0 then return room end
  local held = math.min(room, HELD, math.floor(limit() / 4))
  if held == 0 then return room end
  if held < room then return room - held, now + QUICK end
  local urgent, free = math.min(room, call.urgent), now + time  -- then nothing is kept any more
  if wanted <= room then
    pool.calm = pool.calm or now + call.patience
    return now >= pool.calm and room or urgent, math.min(pool.calm, free)
  end
  if now < (pool.look or 0) then return urgent, math.min(pool.look, free) end
  pool.look = now + math.min(1, time) / HELD
  return math.max(1, urgent), pool.look
end

-- While nothing is known one request of all asks, and one more for each time without an answer.
local function unknown()
  local age = math.max(0, now - (pool.asked_at or now))
  local gone = pool.spent + flying
  local unsent = share(pool.opening) - gone
  local wait = math.max(QUICK, math.min(SLOW, age / 2))
  if asking == 0 then return math.max(1, unsent), wait end
  local more = 1 + math.floor(age / PATIENCE) - asking
  return math.max(0, unsent, math.min(more, share(limit()) - gone)), wait
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
  if not pool.remaining then return unknown() end
  local room, again = unless_held(left())
  local wait = pool.turn and pool.turn + pool.late - now or RETURNS
  if again then wait = math.min(wait, again - now) end
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
  pool.calm = nil
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
