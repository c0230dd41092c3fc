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

-- The highest index of a message's pieces.
local function last_index(record)
  local head = redis.call('HMGET', record, 's0', 'n')
  local number = read_index(head[2])
  -- A message that is not routed has no number.
  if number or (not head[2] and string.match(head[1] or '', '^P|')) then return number or 0 end
  number = 0
  for _, field in ipairs(redis.call('HKEYS', record)) do
    number = math.max(number, read_index(string.match(field, '^s(%d+)$')) or 0)
  end
  return number
end

-- Calls `visit` with every piece of a message that is pending, and buries those that cannot be read.
local function each_pending(id, visit)
  local record = record_of(id)
  local number = last_index(record)
  local seen, names = 0, {}
  for index = 0, number do names[#names + 1] = 's' .. index end
  each_field(record, names, function(name, state)
    if not state or string.match(state, '^[SDXE]|') then return end
    local index = tonumber(string.sub(name, 2))
    seen = seen + 1
    local piece = read_piece(id, index)
    if piece then visit(piece) else bury_unreadable(index == 0 and 'in' or 'unknown', id, index) end
  end)
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
  elseif redis.call('HEXISTS', record_of(id), 'gone') == 0 then
    -- Nothing is pending, whatever its count says.
    redis.call('HSET', record_of(id), 'left', 0)
    message_ended(id)
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
  if secure(list, 'zset') then count_orphan() end
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
    local seen = moment(redis.call('ZSCORE', OWNERS, about.name)) or now - about.idle
    if about.pending == 0 and seen < now - DEAD_AFTER then
      redis.call('XGROUP', 'DELCONSUMER', stream_of(lane), GROUP, about.name)
    end
  end
end

local function tidy()
  local last = natural(redis.call('HGET', STAT, 'reaped'))
  if last and last <= now and last > now - REAP_EVERY then return end
  redis.call('HSET', STAT, 'reaped', whole(now))
  for _, lane in ipairs(redis.call('SMEMBERS', LANES)) do
    if not is_lane(lane) then redis.call('SREM', LANES, lane) end
  end
  for _, lane in ipairs(redis.call('SMEMBERS', LANES)) do
    secure_lane(lane)
    reap(lane)
    redis.call('ZREMRANGEBYSCORE', held_of(lane), '-inf', whole(now))
  end
  redis.call('ZREMRANGEBYSCORE', OWNERS, '-inf', whole(now - 24 * HOUR))
end

-- Puts the pending pieces of a message that are not where they should be back into their lane.
local function mend(id)
  local mended, earliest = 0, nil
  each_pending(id, function(piece)
    earliest = math.min(earliest or piece.deadline, piece.deadline)
    if put_back_if_lost(piece) then mended = mended + 1 end
  end)
  -- Somebody may have written any deadline. What is in hand past its own is looked at every second.
  local set = moment(redis.call('ZSCORE', DEADLINES, id))
  if earliest and (not set or set > math.max(earliest, now + 1000)) then
    redis.call('ZADD', DEADLINES, whole(earliest), id)
  end
  return mended
end

-- A piece of the endless walk through all unfinished messages; faster after a loss.
local function mend_some()
  local kept = redis.call('HMGET', STAT, 'mend', 'mending')
  local from, to_do = natural(kept[1]) or 0, natural(kept[2]) or 0
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
