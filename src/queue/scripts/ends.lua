-- How work ends: its piece, its message, the books and the letter.

-- What ended inside this call: {id, index, lane, subscriber, cause, attempts} each.
local buried = {}

-- Adds to a count of a record, `left` (pending pieces) or `lt` (letters). A count that cannot be right
-- is taken from the pieces anew, which the caller has already changed.
local function count(record, field, by)
  local value = redis.pcall('HINCRBY', record, field, by)
  if type(value) == 'number' and value >= 0 then return value end
  local pending, letters = 0, 0
  local all = redis.call('HGETALL', record)
  for at = 1, #all, 2 do
    if string.match(all[at], '^s%d+$') and string.sub(all[at + 1], 1, 1) == 'P' then pending = pending + 1 end
    if string.match(all[at], '^x%d+$') then letters = letters + 1 end
  end
  redis.call('HSET', record, 'left', pending, 'lt', letters)
  return field == 'left' and pending or letters
end

-- Sets when a record goes. What reads it goes by the field; the server's own expiry frees the memory
-- later where letters are still to be unlisted, or where a test's time may stand still.
local function let_go(record, has_letters)
  local slack = (has_letters or manual) and HOUR or 0
  redis.call('HSET', record, 'gone', whole(now + retention_ms))
  redis.call('PEXPIRE', record, whole(retention_ms + slack))
end

-- A message without pending work: its text goes unless a letter needs it, and in time all the rest.
local function message_ended(id)
  local record = record_of(id)
  local letters = tonumber(redis.call('HGET', record, 'lt') or '0') or 0
  if letters <= 0 then redis.call('HDEL', record, 'ct') end
  redis.call('ZREM', DEADLINES, id)
  redis.call('HINCRBY', STAT, 'open', -1)
  let_go(record, letters > 0)
end

-- Forgets a letter: text, recipient and history go with it.
local function drop_letter(cause, id, index)
  redis.call('ZREM', letters_of(cause), id .. '|' .. index)
  local record = record_of(id)
  local letter = redis.pcall('HGET', record, 'x' .. index)
  -- The record may have gone, or lead a new life.
  if type(letter) ~= 'string' or string.match(letter, '^(%a+)|') ~= cause then return false end
  redis.call('HDEL', record, 'x' .. index, 'rc' .. index, 'h' .. index)
  if count(record, 'lt', -1) == 0 and redis.call('HGET', record, 'left') == '0' then
    redis.call('HDEL', record, 'ct')
  end
  return true
end

-- Drops the oldest letters beyond the number kept, at most `limit`. Returns whether more are too many.
local function make_room_for_letters(cause, limit)
  local surplus = redis.call('ZCARD', letters_of(cause)) - letter_cap
  if surplus <= 0 then return false end
  local oldest = redis.call('ZRANGE', letters_of(cause), 0, math.min(surplus, limit) - 1)
  for _, member in ipairs(oldest) do
    local id, index = read_member(member)
    if id then drop_letter(cause, id, index) else redis.call('ZREM', letters_of(cause), member) end
  end
  return surplus > limit
end

-- Ends a piece that has left its place. With `cause` it becomes a letter.
local function end_piece(piece, state, cause)
  local record, index = record_of(piece.id), piece.index
  piece.state, piece.place, piece.handed = state, '', 0
  write_piece(piece)
  redis.call('HINCRBY', STAT, state, 1)
  if cause then
    redis.call('HSET', record, 'x' .. index, cause .. '|' .. whole(now))
    count(record, 'lt', 1)
    redis.call('ZADD', letters_of(cause), whole(now), member_of(piece))
    make_room_for_letters(cause, 2)
  else
    redis.call('HDEL', record, 'rc' .. index, 'h' .. index)
  end
  if count(record, 'left', -1) == 0 then message_ended(piece.id) end
end

-- Ends a piece that has left its place as dead or expired.
local function bury(piece, cause)
  local subscriber = redis.call('HGET', record_of(piece.id), 'sub') or ''
  end_piece(piece, cause == 'expired' and 'X' or 'D', cause)
  buried[#buried + 1] = { piece.id, piece.index, piece.lane, subscriber, cause, piece.attempts }
end

-- Buries a piece whose fields cannot be read, in its own record, which keeps text and recipient. false
-- without a record.
local function bury_unreadable(lane, id, index)
  if not has_record(id) then return false end
  local record = record_of(id)
  if index > 0 and not read_route(redis.call('HGET', record, 'r' .. index)) then
    redis.call('HSET', record, 'r' .. index, lane .. '||')
  end
  bury({
    id = id, index = index, lane = lane, destination = '', attempts = 0, pauses = 0, handed = 0,
    maybe = index > 0 and '1' or '0', deadline = now, place = '',
  }, 'poison')
  return true
end

-- Buries an entry that names no work at all, with its fields, under an id of its own.
local function bury_raw(lane, entry, fields)
  local name = 'raw:' .. lane .. '-' .. entry
  local id, again = name, 1
  while redis.call('EXISTS', record_of(id)) == 1 do
    again = again + 1
    id = name .. '-' .. again
  end
  local lines = {}
  for at = 1, #fields, 2 do lines[#lines + 1] = fields[at] .. '=' .. (fields[at + 1] or '') end
  local record = record_of(id)
  redis.call('HSET', record, 'acc', whole(now), 'left', 0, 'lt', 1, 'raw', 1, 'ct', table.concat(lines, '\n'),
    's0', 'D|0|0|0|0|' .. whole(now) .. '|', 'r0', lane .. '||', 'x0', 'poison|' .. whole(now))
  let_go(record, true)
  redis.call('HINCRBY', STAT, 'made', 1)
  redis.call('HINCRBY', STAT, 'D', 1)
  redis.call('ZADD', letters_of('poison'), whole(now), id .. '|0')
  make_room_for_letters('poison', 2)
  buried[#buried + 1] = { id, 0, lane, '', 'poison', 0 }
end

-- What an entry names: id, index, whether it comes from the park; nil if it names no work.
local function read_entry(fields)
  local id, index, woken
  for at = 1, #fields - 1, 2 do
    if fields[at] == 'm' then id = fields[at + 1] end
    if fields[at] == 'i' then index = fields[at + 1] end
    if fields[at] == 'w' then woken = fields[at + 1] end
  end
  if not id or not index or not is_message_id(id) then return nil end
  if not string.match(index, '^%d+$') or #index > 5 or tonumber(index) > 65535 then return nil end
  return id, tonumber(index), woken == '1'
end

-- Takes an entry out of its lane that cannot be worked, and buries what it was.
local function quarantine(lane, entry, fields)
  drop_entry(lane, entry)
  local id, index = read_entry(fields)
  if not id or not bury_unreadable(lane, id, index) then bury_raw(lane, entry, fields) end
end
