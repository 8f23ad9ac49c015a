-- What all processes together know of one pool's window. The counterpart of ledger.py and
-- window.py for many processes: the rules are the same. redis_lease.lua goes on from here.
--
-- KEYS[1]: the pool's hash: what is known of the window, and a record "p:<id>" of each process.
-- ARGV[1]: JSON, put together in redis_words.py, which also reads what is returned.
--
-- Times are seconds on this Redis's clock, but for `reset`, `over` and `carried`, which are on
-- Braze's clock, and for `call.low` and `call.high`: Braze's clock showed at least and at most so
-- much when the call was sent. Since the call comes later, what is derived from `low` errs on the
-- late side, as it must.

local LONGEST = 3600    -- seconds: Braze documents no limit with a longer window
local PAUSE = 1         -- seconds, after a refusal that says nothing of its window; doubles
local PATIENCE = 2      -- seconds without an answer until one more request may ask
local GREEDIEST = 4     -- requests of others for one of ours that are reckoned with at most
local SOONEST, LATEST = 0.05, 2  -- seconds that a turn may come later than Braze's clock says
local WARY = 10         -- windows that begin with one request after a refusal
local UNTRUE = 2        -- refusals against the headers' word, from which on it is not believed
local DEAF = 600        -- seconds, for so long
local DEAD = 90         -- seconds after which a process that says nothing is forgotten
local JITTER = 0.1      -- seconds that a request may be quicker on its way than the one before

local OF_WINDOW = {
  "reset", "turn", "soon", "remaining", "known", "first", "by_then", "asked_at", "look", "calm",
}
local OF_POOL = {
  "limit", "number", "opening", "whole", "spent", "refused", "carried", "over", "late", "pace",
  "pause", "closed_at", "closed_until", "wary", "untrue", "deaf_until", "blind", "blind_since",
  "slot",
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
pool.opening, pool.pause = pool.opening or 1, pool.pause or PAUSE
for _, name in ipairs({ "whole", "spent", "refused", "late", "pace", "wary", "untrue", "blind" }) do
  pool[name] = pool[name] or 0
end

local mine = people[call.id] or { calls = 0, batch = 0 }
if call.calls <= mine.calls then
  -- It was held up on its way, and the process has called again since.
  return { 0, 0, pool.number, 1, "0.005", text(now), pool.limit or call.limit, "", "" }
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
    -- It may have sent them, just before the turn as well.
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
  return limit() - pool.remaining - pool.spent - flying > 0
end

local function begin(opening, whole)  -- knowing nothing, but what was spent
  local carried = math.min(pool.reset or math.huge, pool.carried or math.huge)
  pool.carried = carried < math.huge and carried or nil
  pool.pace = pace(flying)
  pool.number, pool.opening, pool.whole, pool.refused = pool.number + 1, opening, whole, 0
  for _, name in ipairs(OF_WINDOW) do pool[name] = nil end
end

local function turn_over(reset)  -- the window whose reset this was is over
  pool.over, pool.wary, pool.spent, pool.carried = reset, math.max(0, pool.wary - 1), 0, nil
end

local function turn()
  local late = pool.turn and now - pool.turn - pool.late or -1
  if late < 0 then return end
  local reset, idle = pool.reset, late > PATIENCE and flying == 0
  begin((idle or shared() or pool.wary > 0) and 1 or limit(), idle and 0 or 1)
  turn_over(reset)
end

local function bound()  -- when the window turns: surely from `turn` on, surely not before `soon`
  if not pool.reset or not call.low then return end
  pool.turn = math.min(pool.turn or now + LONGEST, now + pool.reset - call.low)
  pool.soon = math.max(pool.soon or 0, now + pool.reset - call.high)
end

local function learn(remaining, reset)
  if not pool.remaining and reset > (pool.carried or math.huge) then pool.spent = 0 end
  if not pool.remaining or remaining > pool.remaining then
    pool.first, pool.by_then = remaining, pool.spent
  end
  if reset ~= pool.reset then pool.turn, pool.soon = nil, nil end
  pool.remaining, pool.reset, pool.known = remaining, reset, now
  bound()
end

local function sees()
  if pool.blind == 0 then return end
  begin(1, 0)
  if now - (pool.blind_since or now) > call.period then pool.spent = 0 end
  pool.blind = 0
end

-- Where Braze says nothing of its limit, requests are paced so that no window of the period,
-- wherever it begins, sees more than the limit: `tolerance` seconds may be made good.
local tolerance = call.period / 20
local interval = (call.period + JITTER + tolerance) / share(limit())

-- What the process reports ------------------------------------------------------------------------

local function silent(answers)
  local window, number = unpack(answers)
  count(number)
  if pool.remaining or window ~= pool.number then return end
  if pool.blind == 0 then
    pool.blind, pool.blind_since = 1, now
    local gone = interval * (flying + pool.spent)
    pool.slot = math.max(pool.slot or 0, now + math.min(call.period + JITTER, gone))
  end
end

local function told(answers)
  local reset, number, lowest, granted, says, window = unpack(answers)
  if now < (pool.deaf_until or 0) then return silent({ window, number }) end
  pool.pause = PAUSE
  if reset <= (pool.over or 0) then return end  -- of an earlier window
  sees()
  if not pool.remaining then
    if call.low and reset <= call.low or granted < (pool.known or 0) then return end  -- too old
  elseif reset > pool.reset and call.high and pool.reset <= call.high then
    local over = pool.reset
    begin(1, 1)  -- the window has turned sooner than was sure
    turn_over(over)
  elseif granted < pool.known and (reset < pool.reset or lowest > pool.remaining) then
    -- They may have been counted before what is known was: the lower number is right.
    pool.spent = pool.spent + (reset >= pool.reset and number or 0)
    return
  end
  pool.limit = says > 0 and says or pool.limit
  pool.spent = pool.spent + number
  learn(lowest, reset)
end

-- A refusal that is not explained by a window that is spent.
local function refused_in_vain(window, granted, remaining, wait)
  if granted < (pool.closed_at or 0) then return end  -- sent before an earlier pause
  if not pool.remaining and pool.whole == 1 and window == pool.number then
    pool.late = math.min(LATEST, math.max(SOONEST, 2 * pool.late))  -- not turned yet
  end
  pool.untrue = pool.untrue + (remaining > 0 and 1 or 0)
  if pool.untrue >= UNTRUE then  -- another limit than the one that is told of
    pool.untrue, pool.deaf_until, pool.limit = 0, now + DEAF, nil
  end
  pool.closed_at = now
  pool.closed_until = now + math.min(wait > 0 and wait or pool.pause, LONGEST)
  pool.pause = math.min(2 * pool.pause, math.max(call.period, PAUSE))
  begin(1, 0)
  pool.blind = 0
end

local function refused(answers)
  local reset, window, granted, says, remaining, wait = unpack(answers)
  local past = reset <= (pool.over or 0)  -- also where the answer said no reset: then it is 0
  if reset > 0 and window < pool.number and (past or reset < (pool.reset or 0)) then
    return  -- of an earlier window
  end
  if past or remaining > 0 then pool.wary = WARY end  -- turned too early, or something is wrong
  local over = reset == 0 or call.low and reset + pool.late <= call.low
  if over or remaining > 0 or now < (pool.deaf_until or 0) then
    return refused_in_vain(window, granted, remaining, wait)
  end
  sees()
  pool.limit = says > 0 and says or pool.limit
  learn(0, pool.remaining and math.max(reset, pool.reset) or reset)
  pool.refused = 1
  if wait > 0 then
    pool.closed_at = now
    pool.closed_until = math.max(pool.closed_until or 0, now + wait)
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
