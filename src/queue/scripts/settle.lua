#!lua flags=allow-oom
-- Records what is to become of work: a success from anyone, anything else from the owner.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]    the owner
-- ARGV[6]    how many messages have deliveries that arrived
-- ARGV[7..]  for each of those: message id, how many, and for each delivery: lane, index, name of the hand-out;
--   then for each piece of work that came to another end: message id, index, name of the hand-out, kind, time,
--   cause, attempt, ambiguous
--   kind: 'R' again at `time` (ms), 'P' its destination is paused until `time`,
--     'D' dead of `cause`
--   attempt: the failed attempt as a line of JSON, '' for none; ambiguous: '1' if it may have been sent
-- Result: one word each, in order: 'delivered', 'late', 'delayed', 'stale', 'stale_success', 'lost', or
--   a cause when it ended dead
-- Repeating it finds the work ended, delayed or no longer leased, and changes nothing.

local KEPT_ATTEMPTS = 32

local owner = ARGV[5]

-- Appends an attempt to the history of a piece.
local function note(piece, attempt, ambiguous)
  if attempt == '' then return end
  if ambiguous == '1' and piece.index > 0 then piece.maybe = '1' end
  local record, field = record_of(piece.id), 'h' .. piece.index
  local history = redis.call('HGET', record, field)
  history = history and history .. '\n' .. attempt or attempt
  local _, breaks = string.gsub(history, '\n', '')
  for _ = KEPT_ATTEMPTS, breaks do history = string.gsub(history, '^[^\n]*\n', '', 1) end
  redis.call('HSET', record, field, history)
end

local function end_dead(piece, cause)
  bury(piece, cause)
  return cause
end

local function delay(piece, due)
  if due >= piece.deadline then return end_dead(piece, 'expired') end
  redis.call('ZADD', due_of(piece.lane), whole(due), member_of(piece))
  piece.place = 'd'
  write_piece(piece)
  tell_if_overdue(piece)
  return 'delayed'
end

local function pause(piece, until_ms)
  if piece.destination == '' then return delay(piece, until_ms) end
  local ends = math.max(until_ms, held_until(piece.lane, piece.destination) or 0)
  redis.call('ZADD', held_of(piece.lane), whole(ends), piece.destination)
  -- Work of this destination that is parked already cannot go before that either.
  redis.call('ZADD', wake_of(piece.lane), 'XX', whole(ends), piece.destination)
  if until_ms >= piece.deadline then return end_dead(piece, 'expired') end
  park(piece, ends)
  tell_if_overdue(piece)
  return 'delayed'
end

-- Records a success: from anyone, whether the lease is still his or not.
local function deliver(id, index, name)
  local piece, is_unreadable = read_piece(id, index, 'left', 'n')
  -- Its record was damaged while it was in hand; the entry is the next sweep's.
  if is_unreadable then return 'lost' end
  if not piece then return 'stale' end
  if piece.state ~= 'P' then
    if piece.state ~= 'D' and piece.state ~= 'X' then return 'stale' end
    piece.maybe = '1'
    write_piece(piece)
    return 'stale_success'
  end
  local entry = entry_held_by(owner, piece.lane, name)
  local is_owner = entry ~= nil and is_at(piece, entry)
  if not leave_entry_later(piece) then leave_place(piece) end
  end_delivered(piece)
  return is_owner and 'delivered' or 'late'
end

local answers = {}

-- The same for several deliveries of one message, `number` of three arguments each from `first` on, where each was
-- the first attempt of the first hand-out, by all that the record says: a sweep that took one over since would have
-- noted that it may have been sent. Anyone may bring a success, so that is proof enough, and spares the server
-- a look at each lease and at the record for each. Returns whether it was so; else nothing was changed.
local function deliver_together(id, number, first)
  local record = record_of(id)
  local names = { 'acc', 's0', 'sub', 'n', 'left' }
  for at = first, first + 3 * (number - 1), 3 do
    local index = ARGV[at + 1]
    names[#names + 1] = 's' .. index
    names[#names + 1] = 'r' .. index
  end
  local found = redis.pcall('HMGET', record, unpack(names))
  if is_error(found) then return false end
  local left, of, states, entries = natural(found[5]), read_index(found[4]), {}, {}
  if not left or left < number or not of then return false end
  for piece = 1, number do
    local at = first + 3 * (piece - 1)
    local lane, index, entry = ARGV[at], tonumber(ARGV[at + 1]), string.match(ARGV[at + 2], '^(%d+%-%d+)/1$')
    local state, route = found[4 + 2 * piece], found[5 + 2 * piece]
    if index == 0 or states[index] or not (entry and state and route) then return false end
    local deadline, place = string.match(state, FRESH_STATE)
    if place ~= 'e' .. entry or string.sub(route, 1, #lane + 1) ~= lane .. '|' then return false end
    states[index], entries[piece] = 'S|0|0|0|0|' .. deadline .. '|', entry
  end

  local rest
  if left == number then
    if number == of and number <= FEW and found[1] and found[2] and found[3] then
      rest = { 'acc', found[1], 's0', found[2], 'sub', found[3], 'n', found[4] }
      for name = 6, #names, 2 do
        local size = #rest
        rest[size + 1], rest[size + 2] = names[name], states[tonumber(string.sub(names[name], 2))]
        rest[size + 3], rest[size + 4] = names[name + 1], found[name + 1]
      end
    elseif of <= FEW then
      rest = rest_of(record, states)
    end
    if not rest then return false end
  end
  for piece = 1, number do
    drop_entry_later(ARGV[first + 3 * (piece - 1)], entries[piece])
    answers[#answers + 1] = 'delivered'
  end
  tally_later('S', number)
  if rest then
    message_arrived(id, rest)
    return true
  end
  local now_says, goes = { 'left', whole(left - number) }, {}
  for index, state in pairs(states) do
    now_says[#now_says + 1], now_says[#now_says + 2] = 's' .. index, state
    goes[#goes + 1], goes[#goes + 2] = 'rc' .. index, 'h' .. index
  end
  set_fields(record, now_says)
  redis.call('HDEL', record, unpack(goes))
  return true
end

-- Records any other outcome, which is the owner's to tell.
local function fail(id, index, name, kind, time, cause, attempt, ambiguous)
  local piece, is_unreadable = read_piece(id, index)
  if is_unreadable then return 'lost' end
  if not piece or piece.state ~= 'P' then return 'stale' end
  local entry = entry_held_by(owner, piece.lane, name)
  if not entry or not is_at(piece, entry) then return 'lost' end

  leave_place(piece)
  note(piece, attempt, ambiguous)
  piece.handed = 0
  if kind == 'P' then
    piece.pauses = piece.pauses + 1
    return pause(piece, time)
  end
  if attempt ~= '' then piece.attempts = piece.attempts + 1 end
  if kind == 'R' then return delay(piece, time) end
  return end_dead(piece, cause)
end

local at = 7
for _ = 1, tonumber(ARGV[6]) do
  local id, number = ARGV[at], tonumber(ARGV[at + 1])
  local first = at + 2
  at = first + 3 * number
  if not deliver_together(id, number, first) then
    for piece = first, at - 1, 3 do
      answers[#answers + 1] = deliver(id, tonumber(ARGV[piece + 1]), ARGV[piece + 2])
    end
  end
end
for piece = at, #ARGV, 8 do
  answers[#answers + 1] = fail(ARGV[piece], tonumber(ARGV[piece + 1]), ARGV[piece + 2], ARGV[piece + 3],
    tonumber(ARGV[piece + 4]), ARGV[piece + 5], ARGV[piece + 6], ARGV[piece + 7])
end
drop_entries()
unlist_arrived()
add_tallies()
return answers
