#!lua flags=allow-oom
-- Records what is to become of work: a success from anyone, anything else from the owner.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]    the owner
-- ARGV[6..]  for each: message id, index, name of the hand-out, kind, time, cause, attempt, ambiguous
--   kind: 'S' delivered, 'R' again at `time` (ms), 'P' its destination is paused until `time`,
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

-- Whether a success of the hand-out `name` comes from the owner by all that the record says: it was the first of
-- the entry where the piece is, and a sweep that took it over since would have noted that it may have been sent.
-- Anyone may bring a success, so that is proof enough, and spares the server a look at the lease.
local function is_first_hand_out(piece, name)
  return piece.index > 0 and piece.maybe == '0' and 'e' .. name == piece.place .. '/1'
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

local function settle(id, index, name, kind, time, cause, attempt, ambiguous)
  local piece, is_unreadable = read_piece(id, index, 'left', 'n')
  -- Its record was damaged while it was in hand; the entry is the next sweep's.
  if is_unreadable then return 'lost' end
  if not piece then return 'stale' end
  if piece.state ~= 'P' then
    if kind ~= 'S' or (piece.state ~= 'D' and piece.state ~= 'X') then return 'stale' end
    piece.maybe = '1'
    write_piece(piece)
    return 'stale_success'
  end
  local is_owner = kind == 'S' and is_first_hand_out(piece, name)
  if not is_owner then
    local entry = entry_held_by(owner, piece.lane, name)
    is_owner = entry ~= nil and is_at(piece, entry)
  end
  if kind == 'S' then
    if not leave_entry_later(piece) then leave_place(piece) end
    end_delivered(piece)
    return is_owner and 'delivered' or 'late'
  end
  if not is_owner then return 'lost' end

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

local answers = {}
for at = 6, #ARGV, 8 do
  answers[#answers + 1] = settle(ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3],
    tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6], ARGV[at + 7])
end
drop_entries()
unlist_arrived()
add_tallies()
return answers
