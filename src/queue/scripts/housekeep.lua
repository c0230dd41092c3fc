#!lua flags=allow-oom
-- Ends overdue work, drops old letters, forgets dead owners, puts back what somebody removed. Bounded;
-- everybody calls it about once a second.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  every cause of death
-- Result: {whether there is more to do now, buried, pieces that were in no place and are ready again}

local MESSAGES = 50                -- overdue messages looked at
local PIECES = 300                 -- their pieces looked at
local LETTERS = 100                -- letters dropped, for each cause
local CONSUMERS = 100              -- consumers looked at, for each lane
local MENDED_AT_REST = 10          -- messages checked for lost places
local MENDED_AFTER_A_LOSS = 100    -- the same, when a stream was lost
local REAP_EVERY = 60000
local DEAD_AFTER = HOUR
local ABANDONED_AFTER = 7 * 24 * HOUR

local is_more = false

-- Calls `visit` with every piece of a message that is pending or cannot be read.
local function each_pending(id, visit)
  local record = record_of(id)
  local number = math.min(65535, tonumber(redis.call('HGET', record, 'n') or '0') or 0)
  local seen = 0
  for from = 0, number, 500 do
    local names = {}
    for index = from, math.min(number, from + 499) do names[#names + 1] = 's' .. index end
    for offset, state in ipairs(redis.call('HMGET', record, unpack(names))) do
      if state and not string.match(state, '^[SDXE]|') then
        local index = from + offset - 1
        seen = seen + 1
        local piece = read_piece(id, index)
        if piece then visit(piece) else bury_unreadable(index == 0 and 'in' or 'unknown', id, index) end
      end
    end
  end
  return seen
end

local function expire(id)
  local next_look = nil
  local function look_at(at)
    next_look = math.min(next_look or at, at)
  end
  local seen = each_pending(id, function(piece)
    if piece.deadline > now then
      look_at(piece.deadline)
      return
    end
    local entry = string.match(piece.place, '^e(.+)$')
    local lease = entry and lease_of(piece.lane, entry)
    if lease and lease[3] < ABANDONED_AFTER + (manual and math.max(0, server_ms - now) or 0) then
      -- Its owner's until it settles or a sweep takes it over.
      look_at(now + 1000)
      return
    end
    if lease and piece.index > 0 then piece.maybe = '1' end
    leave_place(piece)
    bury(piece, 'expired')
  end)
  if next_look then
    redis.call('ZADD', DEADLINES, whole(next_look), id)
  else
    redis.call('ZREM', DEADLINES, id)
  end
  return seen
end

local function expire_overdue()
  local overdue = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', whole(now), 'LIMIT', 0, MESSAGES)
  local looked = 0
  for _, id in ipairs(overdue) do
    if looked >= PIECES then
      is_more = true
      return
    end
    if has_record(id) then
      looked = looked + expire(id)
    else
      redis.call('ZREM', DEADLINES, id)
      count_orphan()
    end
  end
  if #overdue == MESSAGES then is_more = true end
end

local function drop_old_letters(cause)
  local list = letters_of(cause)
  local old = redis.call('ZRANGEBYSCORE', list, '-inf', whole(now - retention_ms), 'LIMIT', 0, LETTERS)
  for _, member in ipairs(old) do
    local id, index = read_member(member)
    if id then drop_letter(cause, id, index) else redis.call('ZREM', list, member) end
  end
  if #old == LETTERS or make_room_for_letters(cause, LETTERS) then is_more = true end
end

-- Consumers that hold nothing and were not heard of for long. Checked and deleted in one step: a
-- consumer takes its leases with it.
local function reap(lane)
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream_of(lane), GROUP)
  if is_error(consumers) then return end
  for number, consumer in ipairs(consumers) do
    if number > CONSUMERS then return end
    local about = {}
    for at = 1, #consumer, 2 do about[consumer[at]] = consumer[at + 1] end
    local seen = tonumber(redis.call('ZSCORE', OWNERS, about.name) or nil) or now - about.idle
    if about.pending == 0 and seen < now - DEAD_AFTER then
      redis.call('XGROUP', 'DELCONSUMER', stream_of(lane), GROUP, about.name)
    end
  end
end

local function tidy()
  local last = tonumber(redis.call('HGET', STAT, 'reaped') or nil)
  if last and last <= now and last > now - REAP_EVERY then return end
  redis.call('HSET', STAT, 'reaped', whole(now))
  for _, lane in ipairs(redis.call('SMEMBERS', LANES)) do
    reap(lane)
    redis.call('ZREMRANGEBYSCORE', held_of(lane), '-inf', whole(now))
  end
  redis.call('ZREMRANGEBYSCORE', OWNERS, '-inf', whole(now - 24 * HOUR))
end

-- Whether entry id `a` comes after `b`.
local function is_after(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  a_ms, a_seq, b_ms, b_seq = tonumber(a_ms), tonumber(a_seq), tonumber(b_ms), tonumber(b_seq)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

-- Puts the pending pieces of a message that are not where they should be back into their lane.
local function mend(id)
  local mended = 0
  each_pending(id, function(piece)
    local entry = string.match(piece.place, '^e(%d+%-%d+)$')
    local is_lost = false
    if entry then
      local stream = stream_of(piece.lane)
      local is_there = #redis.call('XRANGE', stream, entry, entry) > 0
      if not lease_of(piece.lane, entry) then
        -- Not leased and before what the group reads next: acknowledged by somebody else.
        local last = is_there and last_delivered(piece.lane)
        is_lost = not is_there or (last and not is_after(entry, last))
      end
    elseif piece.place == 'd' then
      is_lost = not redis.call('ZSCORE', due_of(piece.lane), member_of(piece))
    elseif piece.place == 'k' then
      is_lost = not redis.call('ZSCORE', park_of(piece.lane), parked_member_of(piece))
      if not is_lost then redis.call('ZADD', wake_of(piece.lane), 'NX', whole(now), piece.destination) end
    else
      is_lost = true
    end
    if is_lost then
      leave_place(piece)
      enlist(piece.lane)
      make_ready(piece, false)
      mended = mended + 1
    end
  end)
  return mended
end

-- A piece of the endless walk through all unfinished messages; faster after a loss.
local function mend_some()
  local kept = redis.call('HMGET', STAT, 'mend', 'mending')
  local from, to_do = tonumber(kept[1] or nil) or 0, tonumber(kept[2] or nil) or 0
  local number = to_do > 0 and MENDED_AFTER_A_LOSS or MENDED_AT_REST
  local ids = redis.call('ZRANGE', DEADLINES, from, from + number - 1)
  local mended = 0
  for _, id in ipairs(ids) do
    if has_record(id) then mended = mended + mend(id) end
  end
  local next_from = #ids == number and from + number or 0
  local still = next_from > 0 and math.max(0, to_do - #ids) or 0
  if next_from ~= from or still ~= to_do then
    redis.call('HSET', STAT, 'mend', whole(next_from), 'mending', whole(still))
  end
  if still > 0 then is_more = true end
  return mended
end

expire_overdue()
for at = 5, #ARGV do drop_old_letters(ARGV[at]) end
tidy()
local mended = mend_some()
return { is_more and 1 or 0, buried, mended }
