#!lua flags=allow-oom
-- Hands out work of one lane.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]     the lane
-- ARGV[6]     the owner
-- ARGV[7]     at most how much, 1 or more
-- ARGV[8,9]   the lane's rate: microseconds for one (0: no limit), burst
-- ARGV[10,11] each destination's rate, the same way
-- ARGV[12..]  destinations the owner has enough of in hand
-- Result: {now, group made anew, ms until to ask again (-1: nothing is scheduled), held back by the
--   lane's rate, mark, items, buried}; items as in gates.lua, buried as in ends.lua
-- An answer that is lost leaves its work leased, for a sweep to find.

local LOOKED_AT = 256      -- ready pieces looked at
local PROMOTED = 100       -- pieces whose time has come made ready
local WOKEN = 100          -- parked pieces made ready
local DESTINATIONS = 32    -- destinations woken

local lane, owner, most = ARGV[5], ARGV[6], tonumber(ARGV[7])
local lane_rate = open_rate(PREFIX .. 'rl:' .. lane, tonumber(ARGV[8]), tonumber(ARGV[9]))
local rate_of, close_rates = rates_of(lane, tonumber(ARGV[10]), tonumber(ARGV[11]))
local busy = {}
for at = 12, #ARGV do busy[ARGV[at]] = true end

-- Whether any destination is paused, and whether any has parked work: most often none, and then no piece
-- has to ask.
local has_held, has_parked

-- When work of a destination may go if it may not go now, nil if it may.
local function shut_until(destination)
  local held = has_held and held_until(lane, destination)
  if held then return held end
  if busy[destination] then return now + BUSY_DELAY end
  local rate = rate_of(destination)
  if rate and room_of(rate) == 0 then return opens_at(rate, rate.tat) end
  return nil
end

-- The piece named by a member of a zset that says it is at `place`; nil, and the member was wrong.
local function piece_at(place, id, index)
  local piece, is_unreadable
  if id then piece, is_unreadable = read_piece(id, index) end
  if piece and piece.state == 'P' and piece.place == place and piece.lane == lane then return piece end
  if is_unreadable and bury_unreadable(lane, id, index) then return nil end
  if id and not piece and not has_record(id) then return bury_lost(lane, place, id, index) end
  return drop_stray(piece)
end

-- Work whose time has come.
local function promote()
  local due = due_of(lane)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, PROMOTED)) do
    redis.call('ZREM', due, member)
    local piece = piece_at('d', read_member(member))
    if piece then make_ready(piece, false) end
  end
end

-- Parked work of destinations that may get some: as much as each may have, earliest deadline first. It
-- is looked at again when it is read.
local function wake_up()
  local wake, parked, budget = wake_of(lane), park_of(lane), WOKEN
  -- Members are in the order of their names only among those of one score, which is 0.
  local strays = redis.call('ZREMRANGEBYSCORE', parked, '-inf', '(0')
    + redis.call('ZREMRANGEBYSCORE', parked, '(0', '+inf')
  if strays > 0 then
    lose_track()
    count_orphan()
  end
  local awake = redis.call('ZRANGEBYSCORE', wake, '-inf', whole(now), 'LIMIT', 0, DESTINATIONS)
  for _, destination in ipairs(awake) do
    local shut = shut_until(destination)
    if shut then
      redis.call('ZADD', wake, whole(shut), destination)
    elseif budget > 0 then
      local rate = rate_of(destination)
      local number = math.min(budget, room_of(rate))
      local from, to = park_range(destination)
      local members = redis.call('ZRANGEBYLEX', parked, from, to, 'LIMIT', 0, number)
      budget = budget - #members
      for _, member in ipairs(members) do
        redis.call('ZREM', parked, member)
        local piece = piece_at('k', read_parked_member(member))
        if piece then make_ready(piece, true) end
      end
      if #redis.call('ZRANGEBYLEX', parked, from, to, 'LIMIT', 0, 1) == 0 then
        redis.call('ZREM', wake, destination)
      else
        -- The rest may go when there is room again behind what goes now.
        local at = rate and opens_at(rate, tat_after(rate, number)) or now
        redis.call('ZADD', wake, whole(at), destination)
      end
    end
  end
end

local has_suspect = false

-- Looks at one entry whose turn it is: the item to hand out, or nil.
local function consider(entry, fields)
  local piece, woken = piece_in(lane, entry, fields)
  if not piece or end_if_unfit(piece, entry, piece.handed + 1) then return nil end
  local suspect = is_suspect(piece.handed + 1)
  if suspect and has_suspect then
    drop_entry(lane, entry)
    put_off(piece)
    return nil
  end
  if piece.destination ~= '' then
    local shut = shut_until(piece.destination)
    if not shut and not woken and has_parked then
      -- Others of its destination wait already; it does not overtake them.
      shut = moment(redis.call('ZSCORE', wake_of(lane), piece.destination))
    end
    if shut then
      drop_entry(lane, entry)
      park(piece, shut)
      has_parked = true
      return nil
    end
  end
  has_suspect = has_suspect or suspect
  local item = work_item(piece, entry, 1)
  if piece.destination ~= '' then spend(rate_of(piece.destination), 1) end
  return item
end

secure_lane(lane)
has_held = redis.call('ZCARD', held_of(lane)) > 0
promote()
wake_up()
has_parked = redis.call('ZCARD', wake_of(lane)) > 0

local room = math.min(most, room_of(lane_rate))
local items, entries, looked, last_read = {}, {}, 0, nil
while #items < room and looked < LOOKED_AT do
  local ask = math.min(room - #items, LOOKED_AT - looked)
  local reply = with_group(lane, 'XREADGROUP', 'GROUP', GROUP, owner, 'COUNT', ask, 'STREAMS',
    stream_of(lane), '>')
  if not reply then break end
  for _, read in ipairs(reply[1][2]) do
    looked, last_read = looked + 1, read[1]
    local item = consider(read[1], read[2])
    if item then
      items[#items + 1] = item
      entries[#entries + 1] = read[1]
    end
  end
end

spend(lane_rate, #items)
close_rate(lane_rate)
close_rates()
date_leases(lane, owner, entries)
list_deadlines('NX')
redis.call('ZADD', OWNERS, whole(now), owner)

-- What is left, and when to look at it.
local mark = last_read or last_delivered(lane)
if mark then redis.call('SADD', LANES, lane) else mark = '0-0' end
local is_more = entry_after(lane, mark) ~= nil
local rate_limited = is_more and #items == room and room < most
local wait = nil
local function ask_by(at)
  if at then wait = math.min(wait or at, at) end
end
if is_more then
  ask_by(rate_limited and opens_at(lane_rate, lane_rate.tat) or now)
  -- What is there already need not ring.
  mark = redis.call('XREVRANGE', stream_of(lane), '+', '-', 'COUNT', 1)[1][1]
end
ask_by(moment(redis.call('ZRANGE', due_of(lane), 0, 0, 'WITHSCORES')[2]))
ask_by(moment(redis.call('ZRANGE', wake_of(lane), 0, 0, 'WITHSCORES')[2]))
local ms = wait and math.max(0, wait - now) or -1
return { now, recreated, ms, rate_limited and 1 or 0, mark, items, buried }
